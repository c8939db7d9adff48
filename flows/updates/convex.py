"""A convex model's update: to the minimiser over the retained samples, by the factor of its curvature that was kept.

Axes: d trained parameters.
"""

from __future__ import annotations

from oubli.components.curvature.factors import CurvatureFactor, take_factor
from oubli.components.progress import Progress
from oubli.components.removal.convex import convex_removal
from oubli.flows.job.materials import Materials
from oubli.flows.updates.tried import Tried
from oubli.registry.models.factors import factor_tags, load_factor, store_factor
from oubli.registry.removals.unlearn_config import SnapshotUse

_NONE_KEPT = "No factor was kept with the version: one was taken over the retained samples, and kept."


def convex_update(materials: Materials, on_progress: Progress | None) -> Tried:
    """By the factor that the parent points to, or by one that is taken now and kept for the removals that follow.

    Nothing is tried where the model is too large for a factor and no linear head.

    Raises:
        NumericalError: The bound on the distance is not met.
    """
    kept = None if materials.job.config.use_snapshot is SnapshotUse.NEVER else _kept(materials)
    factor = kept or take_factor(materials.objective, materials.theta, materials.retained)
    if factor is None:
        return Tried()
    update = convex_removal(
        materials.objective,
        materials.theta,
        materials.retained,
        materials.removed_gradient,
        factor,
        on_progress=on_progress,
    )
    if kept is not None:
        return Tried(update, factor.form, factor=factor_tags(materials.model.parent))
    return Tried(update, factor.form, _NONE_KEPT, store_factor(materials.job.store_root, factor))


def _kept(materials: Materials) -> CurvatureFactor | None:
    """The parent's factor, where it is of as many parameters."""
    factor = load_factor(materials.model.parent)
    return None if factor is None or factor.d != materials.objective.space.d else factor.to(materials.objective.device)
