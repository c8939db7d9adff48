"""Update: the Newton removal step on the chosen block."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oubli.components.errors import IndefiniteCurvature, NumericalError
from oubli.components.gradients import RemovedGradient
from oubli.components.newton import newton_removal
from oubli.components.progress import Progress
from oubli.flows.stages.materials import Materials
from oubli.registry.models.weights import load_weights, save_weights
from oubli.registry.removals.removal_job import RemovalJob
from oubli.registry.settings import Settings
from oubli.registry.storage.work_area import StageResult

# One step on a network: further ones follow a gradient that training left, not the removal (components/README.md).
_CONVEX_STEPS, _NETWORK_STEPS = 2, 1


def update(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult:
    """Writes the new `weights`, buffers included; or only the fact that the update could not be made, and why.

    A finding (indefinite curvature, a system that cannot be solved, an empty block) is a result, not a failure: the
    gate turns it into a refusal.
    """

    def compute(folder: Path) -> dict[str, Any]:
        materials = Materials(settings, job)
        convex = materials.recipe.record.convex
        block = materials.block()
        if block is not None and len(block) == 0:
            return {"finding": "empty_block", "seconds": 0.0}
        with job.area.require("gradients").open("gradients.safetensors") as path:
            removed_gradient = load_weights(path)["sum"]
        started = time.perf_counter()
        try:
            result = newton_removal(
                materials.objective,
                materials.theta,
                materials.retained,
                RemovedGradient(removed_gradient.to(materials.theta), len(materials.new_ids)),
                block=block,
                steps=job.config.steps or (_CONVEX_STEPS if convex else _NETWORK_STEPS),
                damping=job.config.damping,
                convex=convex,
                on_progress=on_progress,
            )
        except IndefiniteCurvature as error:
            return {"finding": "indefinite", "detail": error.problem, "seconds": time.perf_counter() - started}
        except NumericalError as error:
            return {"finding": "unsolved", "detail": error.problem, "seconds": time.perf_counter() - started}
        seconds = time.perf_counter() - started
        save_weights(materials.with_theta(result.theta).state_dict(), folder / "weights.safetensors")
        return {"seconds": seconds, "steps": [asdict(step) for step in result.steps]}

    return job.area.run("update", compute, inputs=["fetch", "gradients", "blanket"])
