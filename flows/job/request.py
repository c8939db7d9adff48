"""What a removal is asked to do, resolved against the version it is asked of, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oubli.components.errors import ConfigurationError
from oubli.components.removal.targets import LEAST_HELD_OUT
from oubli.flows.job.ways import ways
from oubli.registry.errors import TrainingDataError
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.removals.asked import Asked, asked
from oubli.registry.removals.removal_set import read_removal_set
from oubli.registry.removals.unlearn_config import UnlearnConfig, Way
from oubli.registry.settings import Settings
from oubli.registry.training.held_out import HeldOut, held_out_rows
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_data import TrainingData


@dataclass(frozen=True)
class Request(Asked):
    """What is asked, and how it can be done.

    Attributes:
        ways: Those that the removal tries, in their order.
        data: What the parent was trained on.
        held_out: The rows that decide, and those that are reported on.
    """

    recipe: Recipe
    ways: tuple[Way, ...]
    data: TrainingData
    held_out: HeldOut


def resolve_request(settings: Settings, model: str, removals: Sequence[str], config: UnlearnConfig) -> Request:
    """Find everything that can be wrong with a request. Raises what `fetch` raises."""
    request = asked(settings, model, read_removal_set(removals), config.unknown_ids)
    parent, record = request.parent, request.record
    recipe = Recipe.of(record, settings)
    tried = ways(config, recipe)
    data = TrainingData.of(record, verify=False)  # `asked` has checked the digest
    if config.privacy is not None and record.sensitivity is None:
        raise ConfigurationError(
            f"privacy is set, but the training record of {parent.label} has no sensitivity to scale noise by.",
            remedy="Attach a record with a `sensitivity`, estimated or proven, or leave privacy out.",
        )
    held_out = held_out_rows(data, record, settings.store_root)
    if len(held_out.test) == 0:
        split = record.dataset.split
        raise TrainingDataError(
            f"The training data of {parent.label} has no rows whose {split.column} is {split.test!r}, so no update "
            "could be judged.",
            remedy="Add held-out rows to the dataset and attach a record that names it.",
        )
    return Request(
        **vars(request), recipe=recipe, ways=_calibrated(tried, held_out, parent), data=data, held_out=held_out
    )


def _calibrated(tried: tuple[Way, ...], held_out: HeldOut, parent: RegisteredVersion) -> tuple[Way, ...]:
    """The ways without matching, where too few rows were held out to calibrate a surrogate on."""
    enough = held_out.held_out is not None and len(held_out.held_out) >= LEAST_HELD_OUT
    left = tuple(way for way in tried if enough or way is not Way.MATCHING)
    if not left:
        raise TrainingDataError(
            f"The training data of {parent.label} has too few held-out rows to calibrate a surrogate on "
            f"({held_out.source}).",
            remedy="Add rows to the validation or the test split and attach a record that names the dataset, or set "
            "method to 'newton'.",
        )
    return left
