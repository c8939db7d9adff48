"""Retrain: the reference that a removal is measured against, trained without the removed samples."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from oubli.components.progress import Progress
from oubli.flows.job.materials import Materials
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings


def retrain_reference(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult:
    """Writes the retrained `weights`, buffers included."""

    def compute(folder: Path) -> dict[str, Any]:
        materials = Materials(settings, job)
        samples = materials.retained_in_memory()
        started = time.perf_counter()
        module = materials.recipe.train(samples, on_progress, frozen=materials.module.state_dict())
        seconds = time.perf_counter() - started
        save_weights(module.state_dict(), folder / "weights.safetensors")
        return {"seconds": seconds}

    return job.area.run("retrain", compute, inputs=["fetch"])
