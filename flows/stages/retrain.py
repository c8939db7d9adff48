"""Retrain: the reference that a removal is measured against, trained without the removed samples."""

from __future__ import annotations

import time
from pathlib import Path

from oubli.components.progress import Progress
from oubli.flows.job.facts import WEIGHTS, RetrainFacts, Stage
from oubli.flows.job.materials import Materials
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings


def retrain_reference(
    settings: Settings, job: RemovalJob, on_progress: Progress | None = None
) -> StageResult[RetrainFacts]:
    """Write the retrained state dict, buffers included."""

    def compute(folder: Path) -> RetrainFacts:
        materials = Materials(settings, job)
        # As tensors, whatever they take: a trainer needs them in memory.
        samples = materials.data.retained.load()
        started = time.perf_counter()
        module = materials.model.recipe.train(samples, on_progress, frozen=materials.model.module.state_dict())
        seconds = time.perf_counter() - started
        save_weights(module.state_dict(), folder / WEIGHTS)
        return RetrainFacts(seconds=seconds)

    return job.area.run(Stage.RETRAIN, RetrainFacts, compute, inputs=[Stage.FETCH])
