"""Blanket: which parameters the update may change."""

from __future__ import annotations

import time
from pathlib import Path

from oubli.components.blocks.blanket import BlanketPlan
from oubli.components.blocks.choosing import Block, select_block
from oubli.components.progress import Progress
from oubli.flows.job.facts import BLOCK, BlanketFacts, BlockFacts, Stage
from oubli.flows.job.materials import Materials
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings


def blanket(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult[BlockFacts]:
    """Write the block's flat `indices` (int64) where one is selected, and nothing where all parameters may move."""

    def compute(folder: Path) -> BlockFacts:
        materials = Materials(settings, job)
        whole = materials.model.whole
        started = time.perf_counter()
        # On the whole model, whose inputs can be perturbed, also where the head alone is updated.
        block = select_block(
            materials.choices.selection,
            whole,
            materials.theta,
            materials.data.removed,
            BlanketPlan(materials.choices.perturbation, job.config.perturbations),
            seed=job.config.seed,
            size=job.config.block_size,
            on_progress=on_progress,
        )
        seconds = time.perf_counter() - started
        if block.indices is not None:
            save_weights({"indices": block.indices}, folder / BLOCK)
        return BlockFacts(
            seconds=seconds,
            selection=block.choice,
            block=block.size(whole),
            parameters=whole.space.d,
            candidate_slices=block.candidates,
            not_sliced=block.unsliced,
            slices=tuple(str(chosen) for chosen in block.slices),
            blanket=_blanket_facts(block),
        )

    return job.area.run(Stage.BLANKET, BlockFacts, compute, inputs=[Stage.FETCH])


def _blanket_facts(block: Block) -> BlanketFacts | None:
    if block.blanket is None:
        return None
    return BlanketFacts(
        counts=block.blanket.counts,
        noise_scale=block.blanket.noise_scale,
        samples_that_selected_nothing=len(block.blanket.selected_nothing),
    )
