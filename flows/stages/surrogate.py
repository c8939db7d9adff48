"""Surrogate: a model trained briefly on the retained samples alone, which shows what retraining would say."""

from __future__ import annotations

import time
from pathlib import Path

from oubli.components.errors import NumericalError
from oubli.components.progress import Progress
from oubli.flows.job.facts import SURROGATE, Stage, SurrogateFacts
from oubli.flows.job.materials import Materials, in_memory
from oubli.flows.job.surrogates import BriefTraining, samples_seen, state_tensors, surrogate_plan
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings
from oubli.registry.training.how_trained import how_trained


def surrogate(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult[SurrogateFacts]:
    """Write the surrogate's weights and buffers; or only why it could not be trained, for the gate to refuse."""

    def compute(folder: Path) -> SurrogateFacts:
        materials = Materials(settings, job)
        how = how_trained(materials.model.record)
        plan = surrogate_plan(how.settings, job.config)
        started = time.perf_counter()
        retained = in_memory(materials.retained)
        # From between the parent and the weights that training began with.
        training = BriefTraining(Stage.SURROGATE, "surrogate", plan, fresh_seed=None, seed=job.config.seed)
        failed = ""
        try:
            save_weights(state_tensors(training.run(materials, retained, on_progress)), folder / SURROGATE)
        except NumericalError as error:
            failed = error.problem
        return SurrogateFacts(
            seconds=time.perf_counter() - started,
            epochs=plan.epochs,
            samples_seen=samples_seen(plan, len(retained)),
            batch_size=max(plan.batches(len(retained))),
            peak_rate=plan.rate_factor * plan.training.peak_rate,
            settings=how.source,
            failed=failed,
        )

    return job.area.run(Stage.SURROGATE, SurrogateFacts, compute, inputs=[Stage.FETCH])
