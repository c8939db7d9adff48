"""The Newton removal step on the chosen block, from the parent's snapshot or with a pass over the retained samples; of
a convex model on all parameters, steps to the minimiser.

Axes: d trained parameters.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from oubli.components.curvature.kinds import curvature_builder
from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NumericalError
from oubli.components.measures.evaluation import retained_gradient_norm
from oubli.components.progress import Progress
from oubli.components.removal.from_snapshot import removal_from_snapshot
from oubli.components.removal.newton import NewtonPlan, newton_removal
from oubli.components.removal.one_at_a_time import one_at_a_time
from oubli.components.removal.update import RemovalUpdate
from oubli.flows.job.facts import WEIGHTS, Indefinite, Made, Unsolved
from oubli.flows.job.materials import Materials
from oubli.flows.updates.convex import convex_update
from oubli.flows.updates.tried import Tried
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.unlearn_config import Order, SnapshotUse

_PROBE_SAMPLES = 1024


def newton_update(
    materials: Materials, block: Tensor | None, folder: Path, on_progress: Progress | None
) -> Made | Indefinite | Unsolved:
    """To the minimiser of a convex model, from the snapshot where this removal takes one, else with a pass."""
    curvature, damping, unused = materials.choices.curvature, materials.choices.damping().words, ""
    started = time.perf_counter()
    try:
        tried = _from_what_was_kept(materials, block, on_progress)
        unused = tried.unused
        result = tried.update or _with_a_pass(materials, block, on_progress)
    except NumericalError as error:
        failed = Indefinite if isinstance(error, IndefiniteCurvature) else Unsolved
        return failed(
            seconds=time.perf_counter() - started,
            curvature=curvature,
            damping=damping,
            snapshot_unused=unused,
            detail=error.problem,
        )
    theta, noise = materials.account.noised(result.theta, materials.theta)
    seconds = time.perf_counter() - started
    save_weights(materials.model.with_theta(theta).state_dict(), folder / WEIGHTS)
    return Made(
        seconds=seconds,
        curvature=tried.form or curvature,
        damping=damping,
        snapshot_unused=unused,
        steps=result.steps,
        model_gradient=result.model_gradient,
        removal_gradient=result.removal_gradient,
        noise_sigma=noise,
        factor=tried.factor,
        # What the step reached can be seen without the noise alone.
        gradient_without_noise=(
            retained_gradient_norm(materials.objective, result.theta, materials.retained) if noise else None
        ),
    )


def _from_what_was_kept(materials: Materials, block: Tensor | None, on_progress: Progress | None) -> Tried:
    """By a convex model's factor, else from the snapshot, where this removal takes one of them."""
    if materials.choices.to_minimiser and block is None:
        tried = convex_update(materials, on_progress)
        if tried.update is not None:
            return tried
    return _from_snapshot(materials, block)


def _from_snapshot(materials: Materials, block: Tensor | None) -> Tried:
    snapshot = _snapshot(materials)
    if snapshot is None:
        return Tried()
    # A few retained samples to find the damping by; a convex model needs none.
    probe = None if materials.model.record.convex else materials.some_retained(_PROBE_SAMPLES)
    try:
        update = removal_from_snapshot(
            materials.objective,
            materials.theta,
            snapshot,
            materials.removed,
            damping=materials.choices.damping(probe),
            block=block,
        )
    except ConfigurationError as error:
        # A block that cuts through what the snapshot keeps whole.
        if materials.job.config.use_snapshot is SnapshotUse.ALWAYS:
            raise
        return Tried(unused=error.problem)
    return Tried(update, snapshot.form)


def _snapshot(materials: Materials) -> CurvatureSnapshot | None:
    """The parent's snapshot where this removal takes it. ConfigurationError where it must and there is none."""
    snapshot = materials.snapshot if materials.choices.may_use_snapshot else None
    if snapshot is None and materials.job.config.use_snapshot is SnapshotUse.ALWAYS:
        raise ConfigurationError(
            f"{materials.model.parent.label} has no curvature snapshot of its weights.",
            remedy="Set use_snapshot to 'auto': the update then passes over the retained samples.",
        )
    return snapshot


def _with_a_pass(materials: Materials, block: Tensor | None, on_progress: Progress | None) -> RemovalUpdate:
    choices, config = materials.choices, materials.job.config
    snapshot = materials.snapshot if choices.needs_secant else None
    some = config.curvature_samples
    plan = NewtonPlan(
        choices.steps,
        choices.damping(),
        convex=materials.model.record.convex,
        curvature=curvature_builder(
            choices.curvature,
            secant=None if snapshot is None else snapshot.secant,
            seed=config.seed,
            budget_bytes=materials.settings.memory_bytes,
        ),
        curvature_samples=None if some is None else materials.some_retained(some),
    )
    removed = materials.removed_gradient
    objective, theta, retained = materials.objective, materials.theta, materials.retained
    if config.order is Order.BATCH:
        return newton_removal(objective, theta, retained, removed, plan, block=block, on_progress=on_progress)
    update = one_at_a_time(objective, theta, retained, materials.removed, plan, block=block, on_progress=on_progress)
    # Of all samples, as for a batch; the update knows the first one's.
    pull = removed.pull(objective, theta)
    return replace(update, removal_gradient=float(pull.norm()) / len(retained))
