"""Which ways a removal can take on a model, and in which order they are tried."""

from __future__ import annotations

from oubli.components.errors import ConfigurationError
from oubli.components.model.losses import is_predictive, loss_kind
from oubli.registry.removals.unlearn_config import AUTO, Order, SnapshotUse, UnlearnConfig, Way
from oubli.registry.training.how_trained import how_trained
from oubli.registry.training.recipe import Recipe


def ways(config: UnlearnConfig, recipe: Recipe) -> tuple[Way, ...]:
    """The ways that a removal tries, one after another until one is accepted.

    Where several are listed, one that the model does not admit is passed over.

    Raises:
        ConfigurationError: The model admits none of them.
    """
    listed = _listed(config, recipe)
    hindered = {way: matching_hindrance(recipe) if way is Way.MATCHING else "" for way in listed}
    admitted = tuple(way for way in listed if not hindered[way])
    if not admitted:
        raise ConfigurationError(
            f"A removal by {' or '.join(listed)} is not possible: {' '.join(hindered.values())}",
            remedy="Set method to 'newton' or 'retrain', or leave it at 'auto'.",
        )
    return admitted


def why(way: Way, config: UnlearnConfig, recipe: Recipe) -> str:
    """Why a way is among those that are tried, in words."""
    if config.ladder or config.method != AUTO:
        return "asked for"
    if way is Way.MATCHING:
        return "the model is a network, and its loss has a calibration"
    if recipe.record.convex:
        return "the objective is convex: a Newton step is exact in the limit"
    if _names_newton(config):
        return "settings of the Newton step are given"
    return matching_hindrance(recipe) or "the next way where matching is refused"


def matching_hindrance(recipe: Recipe) -> str:
    """Why matching is not possible on a model, as a sentence; empty where it is."""
    record = recipe.record
    if record.convex:
        return "The objective is convex, and a Newton step goes to its minimiser instead."
    if loss_kind(recipe.loss) is None:
        return (
            f"Outputs under the loss {record.loss} have no calibration, so that what retraining would say cannot be "
            "predicted by matching."
        )
    if how_trained(record).settings.epochs < 2:
        return "Training took one epoch, so that a surrogate would be a retraining."
    return ""


def audited(recipe: Recipe) -> bool:
    """Whether auditors can judge a removal: the model is a network and its loss has a predictive distribution."""
    return not recipe.record.convex and is_predictive(loss_kind(recipe.loss))


def _listed(config: UnlearnConfig, recipe: Recipe) -> tuple[Way, ...]:
    if config.ladder:
        return config.ladder
    if config.method != AUTO:
        return (Way(config.method),)
    if matching_hindrance(recipe) or _names_newton(config):
        return (Way.NEWTON,)
    return (Way.MATCHING, Way.NEWTON)


def _names_newton(config: UnlearnConfig) -> bool:
    """Whether a setting of the Newton step is given: whoever names one means that step."""
    return (
        config.curvature != AUTO
        or config.curvature_samples is not None
        or config.order is not Order.BATCH
        or config.use_snapshot is not SnapshotUse.AUTO
        or config.steps is not None
        or config.damping is not None
        or config.privacy is not None
    )
