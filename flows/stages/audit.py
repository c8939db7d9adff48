"""Audit: what two models that never saw the removed samples say on them, for the gate to compare an update with.

Both are trained briefly on the retained samples, from fresh weights and with other seeds than the surrogate's, and
calibrated to the original model on held-out samples.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from oubli.components.errors import NumericalError
from oubli.components.model.state import output_table
from oubli.components.progress import Progress
from oubli.components.removal.targets import calibrate
from oubli.flows.job.facts import AUDIT_OUTPUTS, AUDITORS, UPDATE_FACTS, AuditFacts, Made, Matched, Stage
from oubli.flows.job.materials import Materials, in_memory
from oubli.flows.job.original import original_held_out
from oubli.flows.job.surrogates import BriefTraining, samples_seen, surrogate_plan
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings
from oubli.registry.training.how_trained import how_trained


def audit(settings: Settings, job: RemovalJob, on_progress: Progress | None = None) -> StageResult[AuditFacts]:
    """Write the calibrated outputs of judge and witness on removed and held-out samples, where there is an update; or
    only why an auditor could not be trained, for the gate to refuse."""

    def compute(folder: Path) -> AuditFacts:
        if not isinstance(job.area.require(Stage.UPDATE, UPDATE_FACTS).facts, Made | Matched):
            return AuditFacts(seconds=0.0, auditors=0, epochs=0, samples_seen=0)
        materials = Materials(settings, job)
        record = materials.model.record
        plan = replace(surrogate_plan(how_trained(record).settings, job.config), kept=0.0)
        started = time.perf_counter()
        retained = in_memory(materials.retained)
        reference = original_held_out(materials)
        found: dict[str, Tensor] = {}
        for number, name in enumerate(AUDITORS):
            training = BriefTraining(
                Stage.AUDIT, name, plan, fresh_seed=record.seed + number + 1, seed=job.config.seed + number + 1
            )
            try:
                state = training.run(materials, retained, _share(on_progress, number))
            except NumericalError as error:
                seconds, failed = time.perf_counter() - started, f"The auditor '{name}' diverged: {error.problem}"
                return AuditFacts(seconds=seconds, auditors=0, epochs=plan.epochs, samples_seen=0, failed=failed)
            auditor = state.within(materials.objective)
            removed, held_out = (
                output_table(auditor, state.theta, source) for source in (materials.removed, materials.held_out)
            )
            calibrated = calibrate(materials.objective.loss, held_out, reference).by_divergence
            found |= {f"{name}.removed": calibrated(removed), f"{name}.held_out": calibrated(held_out)}
        save_weights(found, folder / AUDIT_OUTPUTS)
        return AuditFacts(
            seconds=time.perf_counter() - started,
            auditors=len(AUDITORS),
            epochs=plan.epochs,
            samples_seen=len(AUDITORS) * samples_seen(plan, len(retained)),
        )

    return job.area.run(Stage.AUDIT, AuditFacts, compute, inputs=[Stage.FETCH, Stage.UPDATE])


def _share(on_progress: Progress | None, number: int) -> Progress | None:
    """Of the progress of all, that of one auditor."""
    if on_progress is None:
        return None
    return lambda fraction: on_progress((number + fraction) / len(AUDITORS))
