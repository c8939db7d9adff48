"""A convex model's update: to the minimiser over the retained samples, by the factor of its curvature that was kept.

Axes: d trained parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oubli.components.curvature.factors import CurvatureFactor, FactorForm, take_factor
from oubli.components.model.gradients import RemovedGradient
from oubli.components.progress import Progress
from oubli.components.removal.convex import convex_removal
from oubli.components.removal.update import RemovalUpdate
from oubli.flows.job.facts import GRADIENTS, Stage
from oubli.flows.job.materials import Materials
from oubli.registry.models.factors import factor_tags, load_factor, store_factor
from oubli.registry.models.weights import load_weights
from oubli.registry.removals.unlearn_config import SnapshotUse

_NONE_KEPT = "No factor was kept with the version: one was taken over the retained samples, and kept."


@dataclass(frozen=True)
class ConvexUpdate:
    """What came of it.

    Attributes:
        update: The weights and how they were found.
        form: Of the factor.
        tags: That point to the factor on the store.
        unused: Why no kept factor served; empty where one did, or none was wanted.
    """

    update: RemovalUpdate
    form: FactorForm
    tags: dict[str, str] = field(repr=False)
    unused: str


def convex_update(materials: Materials, on_progress: Progress | None) -> ConvexUpdate | None:
    """By the factor that the parent points to, or by one that is taken now and kept for the removals that follow.

    None where the model is too large for a factor and no linear head.

    Raises:
        NumericalError: The bound on the distance is not met.
    """
    kept = None if materials.job.config.use_snapshot is SnapshotUse.NEVER else _kept(materials)
    factor = kept or take_factor(materials.objective, materials.theta, materials.retained)
    if factor is None:
        return None
    update = convex_removal(
        materials.objective,
        materials.theta,
        materials.retained,
        removed_gradient(materials),
        factor,
        on_progress=on_progress,
    )
    if kept is not None:
        return ConvexUpdate(update, factor.form, factor_tags(materials.model.parent), "")
    return ConvexUpdate(update, factor.form, store_factor(materials.job.store_root, factor), _NONE_KEPT)


def removed_gradient(materials: Materials) -> RemovedGradient:
    """The removed samples' gradient, as its own stage left it."""
    with materials.job.area.open(Stage.GRADIENTS, GRADIENTS) as path:
        total = load_weights(path)["sum"].to(materials.theta)
    return RemovedGradient(total, len(materials.data.new_ids))


def _kept(materials: Materials) -> CurvatureFactor | None:
    """The parent's factor, where it is of as many parameters."""
    factor = load_factor(materials.model.parent)
    return None if factor is None or factor.d != materials.objective.space.d else factor.to(materials.objective.device)
