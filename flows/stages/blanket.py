"""Blanket: which parameters the update may change."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from oubli.components.blanket import select_blanket
from oubli.components.progress import Progress
from oubli.flows.stages.materials import Materials
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.removal_job import RemovalJob, Selection
from oubli.registry.settings import Settings
from oubli.registry.storage.work_area import StageResult


def blanket(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult:
    """Writes the block's flat `indices` (int64) where L-FOCI selects, and nothing where all parameters move."""

    def compute(folder: Path) -> dict[str, Any]:
        materials = Materials(settings, job)
        parameters = materials.objective.space.d
        if _selection(job, convex=materials.recipe.record.convex) is Selection.FULL:
            return {"selection": Selection.FULL.value, "seconds": 0.0, "block": parameters, "parameters": parameters}
        started = time.perf_counter()
        chosen = select_blanket(
            materials.objective,
            materials.theta,
            materials.removed,
            perturbations=job.config.perturbations,
            sigma=job.config.perturbation_sigma,
            seed=job.config.seed,
            on_progress=on_progress,
        )
        save_weights({"indices": chosen.indices}, folder / "block.safetensors")
        return {
            "selection": Selection.L_FOCI.value,
            "seconds": time.perf_counter() - started,
            "block": len(chosen.indices),
            "parameters": parameters,
            "slices": {str(one): count for one, count in zip(chosen.slices, chosen.counts, strict=True)},
            "candidate_slices": chosen.candidates,
            "selection_noise_scale": chosen.noise_scale,
            "samples_that_selected_nothing": len(chosen.selected_nothing),
            "not_sliced": list(chosen.unsliced),
        }

    return job.area.run("blanket", compute, inputs=["fetch"])


def _selection(job: RemovalJob, *, convex: bool) -> Selection:
    if job.config.selection is Selection.AUTO:
        return Selection.FULL if convex else Selection.L_FOCI
    return job.config.selection
