"""Gradients: the removed samples' loss gradients, summed, and the norm of each.

Axes: m removed samples, d trained parameters.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from oubli.components.model.gradients import per_sample_gradients
from oubli.flows.job.facts import GRADIENTS, GradientFacts, Stage
from oubli.flows.job.materials import Materials
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings


def gradients(settings: Settings, job: RemovalJob) -> StageResult[GradientFacts]:
    """Write the loss gradients' `sum` (d,) and `norms` (m,), without the L2 term."""

    def compute(folder: Path) -> GradientFacts:
        materials = Materials(settings, job)
        started = time.perf_counter()
        total = torch.zeros_like(materials.theta)
        norms = []
        for chunk in per_sample_gradients(
            materials.objective, materials.theta, materials.removed, budget_bytes=settings.memory_bytes
        ):
            total += chunk.sum(0)
            norms.append(chunk.norm(dim=1))
        all_norms = torch.cat(norms)
        save_weights({"sum": total, "norms": all_norms}, folder / GRADIENTS)
        return GradientFacts(
            seconds=time.perf_counter() - started,
            gradient_norm_of_sum=float(total.norm()),
            largest_gradient_norm=float(all_norms.max()),
            median_gradient_norm=float(all_norms.median()),
        )

    return job.area.run(Stage.GRADIENTS, GradientFacts, compute, inputs=[Stage.FETCH])
