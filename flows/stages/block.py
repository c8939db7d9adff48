"""Blanket: which parameters carry what the loss knows of the removed samples, and which the update may change.

On a network the Markov blanket is found in any case, within its budget: as the block where one is chosen, as evidence
where all parameters may move.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from oubli.components.blocks.blanket import Blanket, BlanketPlan
from oubli.components.blocks.choosing import Block, BlockChoice, select_block
from oubli.components.errors import ConfigurationError, NumericalError
from oubli.components.model.samples import Samples
from oubli.components.progress import Progress
from oubli.flows.job.costs import BlanketExtent, blanket_extent, training_passes
from oubli.flows.job.facts import BLOCK, CARRIERS, BlanketFacts, BlockFacts, Stage
from oubli.flows.job.materials import Materials
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings
from oubli.registry.training.how_trained import how_trained

_BLANKETS = (BlockChoice.L_FOCI, BlockChoice.L_FOCI_BATCH)


def blanket(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult[BlockFacts]:
    """Write the block's flat `indices` (int64) where one is selected, and nothing where all parameters may move.

    There, the indices of the blanket are written under another name.
    """

    def compute(folder: Path) -> BlockFacts:
        materials = Materials(settings, job)
        whole, choice = materials.model.whole, materials.choices.selection
        started = time.perf_counter()
        look = _Look.of(materials, on_progress)
        block = look.block(choice)
        if block.indices is not None:
            save_weights({"indices": block.indices}, folder / BLOCK)
        evidence, missing = block.blanket, ""
        if choice is BlockChoice.FULL and not materials.model.record.convex:
            evidence, missing = look.evidence()
            if evidence is not None:
                save_weights({"indices": evidence.indices}, folder / CARRIERS)
        slices = block.slices if evidence is None else evidence.slices
        return BlockFacts(
            seconds=time.perf_counter() - started,
            selection=block.choice,
            block=block.size(whole),
            parameters=whole.space.d,
            candidate_slices=block.candidates if evidence is None else evidence.candidates,
            not_sliced=block.unsliced if evidence is None else evidence.unsliced,
            slices=tuple(str(chosen) for chosen in slices),
            blanket=None if evidence is None else _facts(evidence, look.extent),
            no_blanket=missing,
        )

    return job.area.run(Stage.BLANKET, BlockFacts, compute, inputs=[Stage.FETCH])


@dataclass(frozen=True)
class _Look:
    """Selection on one job's model. L-FOCI looks at as many of the removed samples as its budget allows."""

    materials: Materials
    extent: BlanketExtent
    on_progress: Progress | None

    @classmethod
    def of(cls, materials: Materials, on_progress: Progress | None) -> _Look:
        epochs = how_trained(materials.model.record).settings.epochs
        retraining = training_passes(epochs, len(materials.data.retained))
        extent = blanket_extent(materials.job.config, len(materials.data.removed), retraining)
        return cls(materials, extent, on_progress)

    def block(self, choice: BlockChoice) -> Block:
        """The block that an update may move."""
        materials, config = self.materials, self.materials.job.config
        # On the whole model, whose inputs can be perturbed, also where the head alone is updated.
        return select_block(
            choice,
            materials.model.whole,
            materials.theta,
            self._samples() if choice in _BLANKETS else materials.data.removed,
            BlanketPlan(materials.choices.perturbation, self.extent.perturbations),
            seed=config.seed,
            size=config.block_size,
            on_progress=None if choice is BlockChoice.FULL else self.on_progress,
        )

    def evidence(self) -> tuple[Blanket | None, str]:
        """The blanket, or why there is none: evidence alone never stops a removal."""
        try:
            return self.block(BlockChoice.L_FOCI).blanket, ""
        except (ConfigurationError, NumericalError) as error:
            return None, error.problem

    def _samples(self) -> Samples:
        """Some of the removed samples, drawn by the job's seed, in their order."""
        removed, seed = self.materials.data.removed, self.materials.job.config.seed
        drawn = torch.randperm(len(removed), generator=torch.Generator().manual_seed(seed))[: self.extent.samples]
        return removed.select(drawn.sort().values)


def _facts(found: Blanket, extent: BlanketExtent) -> BlanketFacts:
    return BlanketFacts(
        counts=found.counts,
        noise_scale=found.noise_scale,
        samples_that_selected_nothing=len(found.selected_nothing),
        samples=extent.samples,
        perturbations=extent.perturbations,
    )
