"""Register: an accepted update becomes a new version and gets its alias; a refusal leaves a run with its reasons."""

from __future__ import annotations

from oubli.components.gate.verdict import Decision
from oubli.flows.job.facts import Stage
from oubli.flows.job.materials import Materials
from oubli.flows.job.original import outputs_tags
from oubli.flows.job.run_record import Findings, description, run_record
from oubli.registry.models import tags
from oubli.registry.models.lineage import Method
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.models.registration import (
    NewVersion,
    RunRecord,
    close_unfinished_runs,
    log_run,
    register_version,
    signature_for,
)
from oubli.registry.models.weights import weights_digest
from oubli.registry.removals.aliases import move_alias
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.removed_ids import store_removed
from oubli.registry.settings import Settings


def register(settings: Settings, job: RemovalJob) -> RemovalOutcome:
    """Act on what the gate decided. The version appears once, however often this runs.

    Raises:
        ObjectMissing: A stage that this one needs has not finished.
        RegistryError: MLflow could not log the model, or logged another.
    """
    materials = Materials(settings, job)
    # A killed attempt at this removal left its run open.
    close_unfinished_runs(materials.model.registry, materials.model.experiment_id, job.key)
    findings = Findings.read(job.area)
    shown = run_record(job, materials.model, findings)
    if findings.validate.decision is Decision.ACCEPTED:
        outcome = _accepted(materials, findings, shown)
    else:
        outcome = _refused(materials, findings, shown)
    job.area.record(Stage.REGISTER, RemovalOutcome, outcome, inputs=[Stage.VALIDATE])
    return outcome


def _accepted(materials: Materials, findings: Findings, shown: RunRecord) -> RemovalOutcome:
    job, registry = materials.job, materials.model.registry
    version = registry.by_removal_key(job.model, job.key) or _new_version(materials, shown)
    advice = move_alias(registry, version, job.config.alias)
    outcome = _outcome(job, findings, Status.REGISTERED)
    return outcome.model_copy(update={"version": version.version, "run_id": version.run_id, "advice": advice})


def _refused(materials: Materials, findings: Findings, shown: RunRecord) -> RemovalOutcome:
    parent = materials.model.parent
    run_id = log_run(materials.model.registry, shown)
    return _outcome(materials.job, findings, Status.REFUSED).model_copy(
        update={
            "run_id": run_id,
            "reasons": tuple(reason.sentence for reason in findings.validate.reasons),
            "advice": f"Nothing was promoted. To retrain: oubli train --from {parent.name} --removals URI",
        }
    )


def _new_version(materials: Materials, shown: RunRecord) -> RegisteredVersion:
    job, model = materials.job, materials.model
    weights = model.weights_of(Stage.UPDATE)
    module = model.recipe.module(weights)
    return register_version(
        model.registry,
        NewVersion(
            name=job.model,
            module=module,
            signature=model.registry.signature(model.parent)
            or signature_for(module, model.recipe.example(materials.data.removed.inputs)),
            example_value=model.recipe.example_value,
            tags={
                tags.METHOD: Method.UNLEARNED.value,
                **model.parent.child_tags(),
                tags.REMOVAL_KEY: job.key,
                tags.WEIGHTS_SHA256: weights_digest(weights),
                tags.RECORD: model.parent.tags[tags.RECORD],
                tags.RECORD_SHA256: model.parent.tags[tags.RECORD_SHA256],
                **outputs_tags(materials),
                **store_removed(job.store_root, job.key, materials.data.new_ids, materials.data.earlier),
            },
            description=description(job, shown),
        ),
        shown,
    )


def _outcome(job: RemovalJob, findings: Findings, status: Status) -> RemovalOutcome:
    return RemovalOutcome(
        status=status,
        removal_key=job.key,
        model=job.model,
        parent_version=job.parent_version,
        version=None,
        run_id=None,
        removed=findings.fetch.removed,
        already_removed=findings.fetch.already_removed,
        unknown=findings.fetch.unknown,
    )
