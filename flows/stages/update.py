"""Update: the removal update on the chosen block.

Axes: d trained parameters.
"""

from __future__ import annotations

from pathlib import Path

from oubli.components.progress import Progress
from oubli.flows.job.facts import UPDATE_FACTS, BlockFacts, EmptyBlock, Stage, UpdateFacts
from oubli.flows.job.materials import Materials
from oubli.flows.updates.matching import matching_update
from oubli.flows.updates.newton import newton_update
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.unlearn_config import Way
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings


def update(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult[UpdateFacts]:
    """Write the new state dict, buffers included; or only why the update could not be made.

    Indefinite curvature, a system that cannot be solved and an empty block are results, not failures: the gate turns
    them into refusals.

    Raises:
        ConfigurationError: The configuration asks for a snapshot or a secant that the parent does not have.
    """

    def compute(folder: Path) -> UpdateFacts:
        materials = Materials(settings, job)
        block = materials.block()
        if block is not None and len(block) == 0:
            facts = job.area.require(Stage.BLANKET, BlockFacts).facts
            return EmptyBlock(candidate_slices=facts.candidate_slices)
        make = matching_update if matching else newton_update
        return make(materials, block, folder, on_progress)

    matching = job.config.method is Way.MATCHING
    inputs = [Stage.FETCH, Stage.GRADIENTS, Stage.BLANKET, *([Stage.SURROGATE] if matching else [])]
    return job.area.run(Stage.UPDATE, UPDATE_FACTS, compute, inputs=inputs)
