"""Blanket: which parameters the update may change."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from oubli.components.blocks.blanket import BlanketPlan
from oubli.components.blocks.choosing import select_block
from oubli.components.progress import Progress
from oubli.flows.job.materials import Materials
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.removal_job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings


def blanket(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult:
    """Writes the block's flat `indices` (int64) where one is selected, and nothing where all parameters move."""

    def compute(folder: Path) -> dict[str, Any]:
        materials = Materials(settings, job)
        selection = materials.choices.selection
        started = time.perf_counter()
        # On the whole model, whose inputs can be perturbed, also where the head alone is updated.
        block = select_block(
            selection,
            materials.whole,
            materials.theta,
            materials.removed_inputs,
            BlanketPlan(materials.choices.perturbation, job.config.perturbations),
            seed=job.config.seed,
            size=job.config.block_size,
            on_progress=on_progress,
        )
        facts: dict[str, Any] = {
            "selection": selection.value,
            "seconds": time.perf_counter() - started,
            "block": block.size(materials.whole),
            "parameters": materials.whole.space.d,
        }
        if block.indices is None:
            return facts
        save_weights({"indices": block.indices}, folder / "block.safetensors")
        facts |= {"candidate_slices": block.candidates, "not_sliced": list(block.unsliced)}
        chosen = block.blanket
        if chosen is None:
            return facts | {"slices": [str(one) for one in block.slices]}
        return facts | {
            "slices": {str(one): count for one, count in zip(chosen.slices, chosen.counts, strict=True)},
            "selection_noise_scale": chosen.noise_scale,
            "samples_that_selected_nothing": len(chosen.selected_nothing),
        }

    return job.area.run("blanket", compute, inputs=["fetch"])
