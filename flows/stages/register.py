"""Register: an accepted update becomes a new version and gets its alias; a refusal leaves a run with its reasons.

Where there was nothing to forget, the version that is made has the parent's weights, so that its lineage, and the ids
that it lacks, go on.
"""

from __future__ import annotations

from oubli.components.gate.verdict import Decision
from oubli.flows.job.facts import Made, Stage
from oubli.flows.job.materials import Materials
from oubli.flows.job.original import outputs_tags
from oubli.flows.job.run_record import Findings, description, run_record
from oubli.registry.models import tags
from oubli.registry.models.factors import factor_tags
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
from oubli.registry.removals.unlearn_config import NothingToForget
from oubli.registry.settings import Settings

_NOTHING = (
    "There was nothing to forget: the parent already says of these samples what a model that never saw them would. The "
    "new version has its weights, unchanged, and lacks the samples on record."
)
_RETRAIN = (
    "There was nothing to forget: the parent already says of these samples what a model that never saw them would; "
    "nothing_to_forget is 'retrain', so that no update takes the place of a retraining."
)


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
    if _makes_version(job, findings):
        outcome = _accepted(materials, findings, shown)
    else:
        outcome = _refused(materials, findings, shown)
    job.area.record(Stage.REGISTER, RemovalOutcome, outcome, inputs=[Stage.VALIDATE])
    return outcome


def _makes_version(job: RemovalJob, findings: Findings) -> bool:
    """Whether there is a version to register: of the update, or of the parent's weights where nothing was to forget."""
    if findings.validate.decision is Decision.NOTHING_TO_FORGET:
        return job.config.nothing_to_forget is NothingToForget.RECORD
    return findings.validate.decision is Decision.ACCEPTED


def _accepted(materials: Materials, findings: Findings, shown: RunRecord) -> RemovalOutcome:
    job, registry = materials.job, materials.model.registry
    version = registry.by_removal_key(job.model, job.key) or _new_version(materials, findings, shown)
    advice = move_alias(registry, version, job.config.alias)
    outcome = _outcome(job, findings, Status.REGISTERED)
    if outcome.nothing_to_forget:
        advice = f"{_NOTHING} {advice}".rstrip()
    return outcome.model_copy(update={"version": version.version, "run_id": version.run_id, "advice": advice})


def _refused(materials: Materials, findings: Findings, shown: RunRecord) -> RemovalOutcome:
    parent = materials.model.parent
    run_id = log_run(materials.model.registry, shown)
    found = findings.validate
    nothing = found.decision is Decision.NOTHING_TO_FORGET
    return _outcome(materials.job, findings, Status.REFUSED).model_copy(
        update={
            "run_id": run_id,
            "reasons": (_RETRAIN,) if nothing else tuple(reason.sentence for reason in found.reasons),
            "advice": "Nothing was promoted; each reason says what may help. "
            f"To retrain: oubli train --from {parent.name} --removals URI",
        }
    )


def _new_version(materials: Materials, findings: Findings, shown: RunRecord) -> RegisteredVersion:
    job, model = materials.job, materials.model
    nothing = findings.validate.decision is Decision.NOTHING_TO_FORGET
    weights = model.weights_of(Stage.FETCH if nothing else Stage.UPDATE)
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
                **({tags.VERDICT: findings.validate.decision.value} if nothing else {}),
                tags.REMOVAL_KEY: job.key,
                tags.WEIGHTS_SHA256: weights_digest(weights),
                tags.RECORD: model.parent.tags[tags.RECORD],
                tags.RECORD_SHA256: model.parent.tags[tags.RECORD_SHA256],
                **outputs_tags(materials),
                **_factor_tags(materials, findings),
                **store_removed(job.store_root, job.key, materials.data.new_ids, materials.data.earlier),
            },
            description=description(job, shown, findings.validate.remarks),
        ),
        shown,
    )


def _factor_tags(materials: Materials, findings: Findings) -> dict[str, str]:
    """The tags that point to the factor that the update went by, or to the parent's."""
    return (findings.update.factor if isinstance(findings.update, Made) else {}) or factor_tags(materials.model.parent)


def _outcome(job: RemovalJob, findings: Findings, status: Status) -> RemovalOutcome:
    return RemovalOutcome(
        status=status,
        removal_key=job.key,
        model=job.model,
        parent_version=job.parent_version,
        version=None,
        run_id=None,
        nothing_to_forget=findings.validate.decision is Decision.NOTHING_TO_FORGET,
        removed=findings.fetch.removed,
        already_removed=findings.fetch.already_removed,
        unknown=findings.fetch.unknown,
    )
