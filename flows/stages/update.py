"""Update: the Newton removal step on the chosen block."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from oubli.components.curvature.kinds import curvature_builder
from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NumericalError
from oubli.components.measures.evaluation import retained_gradient_norm
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.samples import SampleSource
from oubli.components.progress import Progress
from oubli.components.removal.damping import Damping, Fixed, Least, Undamped
from oubli.components.removal.from_snapshot import removal_from_snapshot
from oubli.components.removal.newton import NewtonPlan, newton_removal
from oubli.components.removal.one_at_a_time import one_at_a_time
from oubli.components.removal.update import RemovalUpdate
from oubli.flows.job.materials import Materials
from oubli.registry.models.weights import load_weights, save_weights
from oubli.registry.removals.removal_job import Order, RemovalJob, SnapshotUse
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings

_PROBE_SAMPLES = 1024


def update(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult:
    """Writes the new `weights`, buffers included; or only the fact that the update could not be made, and why.

    A finding (indefinite curvature, a system that cannot be solved, an empty block) is a result, not a failure: the
    gate turns it into a refusal.
    """

    def compute(folder: Path) -> dict[str, Any]:
        materials = Materials(settings, job)
        choices = materials.choices
        block = materials.block()
        if block is not None and len(block) == 0:
            return {"finding": "empty_block", "seconds": 0.0}
        how = {"curvature": choices.curvature.value, "damping": choices.damping}
        started = time.perf_counter()
        try:
            result = _update(materials, block, how, on_progress)
        except IndefiniteCurvature as error:
            return {**how, "finding": "indefinite", "detail": error.problem, "seconds": time.perf_counter() - started}
        except NumericalError as error:
            return {**how, "finding": "unsolved", "detail": error.problem, "seconds": time.perf_counter() - started}
        theta, noise = materials.account.noised(result.theta, materials.theta)
        seconds = time.perf_counter() - started
        save_weights(materials.with_theta(theta).state_dict(), folder / "weights.safetensors")
        return {
            **how,
            "seconds": seconds,
            "steps": [asdict(step) for step in result.steps],
            "model_gradient": result.model_gradient,
            "removal_gradient": result.removal_gradient,
            "noise_sigma": noise,
            # What the step reached can be seen without the noise alone.
            "gradient_without_noise": (
                retained_gradient_norm(materials.objective, result.theta, materials.retained) if noise else None
            ),
        }

    return job.area.run("update", compute, inputs=["fetch", "gradients", "blanket"])


def _update(
    materials: Materials, block: Tensor | None, how: dict[str, str], on_progress: Progress | None
) -> RemovalUpdate:
    """From the snapshot where this removal takes one, else with a pass. `how` is told which, and why."""
    snapshot = _snapshot(materials)
    if snapshot is not None:
        try:
            update = _from_snapshot(materials, snapshot, block)
        except ConfigurationError as error:
            # A block that cuts through what the snapshot keeps whole.
            if materials.job.config.use_snapshot is SnapshotUse.ALWAYS:
                raise
            how["snapshot_unused"] = error.problem
        else:
            how["curvature"] = f"snapshot ({snapshot.form.value})"
            return update
    return _with_a_pass(materials, block, on_progress)


def _snapshot(materials: Materials) -> CurvatureSnapshot | None:
    """The parent's snapshot where this removal takes it. ConfigurationError where it must and there is none."""
    found = materials.snapshot if materials.choices.may_use_snapshot else None
    if found is None and materials.job.config.use_snapshot is SnapshotUse.ALWAYS:
        raise ConfigurationError(
            f"{materials.parent.label} has no curvature snapshot of its weights.",
            remedy="Set use_snapshot to 'auto': the update then passes over the retained samples.",
        )
    return found


def _from_snapshot(materials: Materials, snapshot: CurvatureSnapshot, block: Tensor | None) -> RemovalUpdate:
    # A few retained samples to find the damping by; a convex model needs none.
    probe = None if materials.recipe.record.convex else materials.some_retained(_PROBE_SAMPLES)
    return removal_from_snapshot(
        materials.objective,
        materials.theta,
        snapshot,
        materials.removed,
        damping=_damping(materials, probe),
        block=block,
    )


def _damping(materials: Materials, probe: SampleSource | None = None) -> Damping:
    """As configured; else none for a convex model, and for a network the least that `probe` allows."""
    config = materials.job.config
    if config.damping is not None:
        return Fixed(config.damping)
    return Undamped() if materials.recipe.record.convex else Least(config.limits.gradient_rise, probe)


def _with_a_pass(materials: Materials, block: Tensor | None, on_progress: Progress | None) -> RemovalUpdate:
    choices, config = materials.choices, materials.job.config
    snapshot = materials.snapshot if choices.needs_secant else None
    curvature = curvature_builder(
        choices.curvature,
        secant=None if snapshot is None else snapshot.secant,
        seed=config.seed,
        budget_bytes=materials.settings.memory_bytes,
    )
    with materials.job.area.require("gradients").open("gradients.safetensors") as path:
        total = load_weights(path)["sum"].to(materials.theta)
    removed = RemovedGradient(total, len(materials.new_ids))
    some = config.curvature_samples
    plan = NewtonPlan(
        choices.steps,
        _damping(materials),
        materials.recipe.record.convex,
        curvature,
        None if some is None else materials.some_retained(some),
    )
    objective, theta, retained = materials.objective, materials.theta, materials.retained
    if config.order is Order.ONE_AT_A_TIME:
        one_by_one = one_at_a_time(
            objective, theta, retained, materials.removed, plan, block=block, on_progress=on_progress
        )
        # Of all samples, as for a batch; the update knows the first one's.
        pull = removed.pull(objective, theta)
        return replace(one_by_one, removal_gradient=float(pull.norm()) / len(retained))
    return newton_removal(objective, theta, retained, removed, plan, block=block, on_progress=on_progress)
