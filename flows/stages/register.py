"""Register: an accepted update becomes a new version and gets its alias; a refusal leaves a run with its reasons."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from oubli.components.gate.gate import Outcome
from oubli.flows.job.materials import Materials
from oubli.registry.models import tags
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import (
    NewVersion,
    RunRecord,
    close_unfinished_runs,
    log_run,
    register_version,
    signature_for,
)
from oubli.registry.models.tags import OF_PARENT, OF_RETRAINED, Artifact, Metric, Param
from oubli.registry.models.weights import load_weights, weights_digest
from oubli.registry.removals.aliases import move_alias
from oubli.registry.removals.removal_job import RemovalJob, RemovalOutcome, Status
from oubli.registry.removals.removed_ids import store_removed
from oubli.registry.settings import Settings

_STAGES = ("fetch", "gradients", "blanket", "update", "retrain", "validate")
_DESCRIBED = (
    Metric.FORGET_LOSS,
    Metric.RETAINED_LOSS,
    Metric.TEST_LOSS,
    Metric.FORGET_ACCURACY,
    Metric.RETAINED_ACCURACY,
    Metric.TEST_ACCURACY,
)
"""The figures that a version's description shows."""


def finished_outcome(registry: ModelRegistry, job: RemovalJob) -> RemovalOutcome | None:
    """How this very removal ended, where an earlier run finished it."""
    stage = job.area.finished("register")
    if stage is None:
        version = registry.by_removal_key(job.model, job.outcome)
        if version is None or job.area.finished("fetch") is not None:
            return None
        # Made long ago, and its work area has been cleaned up.
        return RemovalOutcome(
            status=Status.ALREADY_DONE,
            outcome=job.outcome,
            model=job.model,
            parent_version=job.parent_version,
            version=version.version,
            run_id=version.run_id,
        )
    outcome = RemovalOutcome.model_validate(stage.facts)
    if outcome.status is Status.REFUSED:
        return outcome
    if registry.by_removal_key(job.model, job.outcome) is None:
        # Somebody deleted the version since; the work area can make it anew.
        return None
    return outcome.model_copy(update={"status": Status.ALREADY_DONE})


def register(settings: Settings, job: RemovalJob) -> RemovalOutcome:
    """Register what `validate` judged. The version appears once, however often this runs."""
    materials = Materials(settings, job)
    # A killed attempt at this removal left its run open.
    close_unfinished_runs(materials.registry, materials.experiment_id, job.outcome)
    accepted = job.area.require("validate").facts["accepted"]
    outcome = _accepted(materials) if accepted else _refused(materials)
    job.area.record("register", outcome.model_dump(mode="json"), inputs=["validate"])
    return outcome


def _accepted(materials: Materials) -> RemovalOutcome:
    job, registry = materials.job, materials.registry
    version = registry.by_removal_key(job.model, job.outcome) or _new_version(materials)
    advice = move_alias(registry, version, job.config.alias)
    outcome = _outcome(materials, Status.REGISTERED, version.version, version.run_id)
    return outcome.model_copy(update={"advice": advice})


def _refused(materials: Materials) -> RemovalOutcome:
    job, parent = materials.job, materials.parent
    run_id = log_run(materials.registry, _run_record(materials, Outcome.REFUSED))
    return _outcome(materials, Status.REFUSED, None, run_id).model_copy(
        update={
            "reasons": tuple(reason["sentence"] for reason in job.area.require("validate").facts["reasons"]),
            "advice": f"Nothing was promoted. To retrain: oubli train --from {parent.name} --removals URI",
        }
    )


def _new_version(materials: Materials) -> RegisteredVersion:
    job, parent = materials.job, materials.parent
    with job.area.require("update").open("weights.safetensors") as path:
        weights = load_weights(path)
    module = materials.recipe.module(weights)
    with job.area.require("fetch").open("removed.parquet") as path:
        new_ids = pq.read_table(path).column("sample_id").to_pylist()
    run_record = _run_record(materials, Outcome.ACCEPTED)
    return register_version(
        materials.registry,
        NewVersion(
            name=job.model,
            module=module,
            signature=materials.registry.signature(parent)
            or signature_for(module, materials.recipe.example(materials.removed_inputs.inputs)),
            example_value=materials.recipe.example_value,
            tags={
                tags.METHOD: Method.UNLEARNED.value,
                **parent.child_tags(),
                tags.REMOVAL_KEY: job.outcome,
                tags.WEIGHTS_SHA256: weights_digest(weights),
                tags.RECORD: parent.tags[tags.RECORD],
                tags.RECORD_SHA256: parent.tags[tags.RECORD_SHA256],
                **store_removed(job.store_root, job.outcome, new_ids, materials.earlier),
            },
            description=_description(materials, run_record),
        ),
        run_record,
    )


def _run_record(materials: Materials, verdict: Outcome) -> RunRecord:
    job, record = materials.job, materials.recipe.record
    facts = {name: stage.facts for name in _STAGES if (stage := job.area.finished(name)) is not None}
    lineage = Lineage(
        method=Method.UNLEARNED,
        verdict=verdict.value,
        parent_version=job.parent_version,
        request_ids=facts["fetch"]["request_ids"],
        removed=facts["fetch"]["removed"],
        removed_in_all=facts["fetch"]["removed"] + facts["fetch"]["removed_before"],
        removal_digest=job.removal_digest,
        config_digest=job.config.digest(),
        selection=facts["blanket"]["selection"],
        curvature=facts["update"].get("curvature", "none"),
        damping=facts["update"].get("damping", "none"),
        privacy=facts["validate"]["privacy"],
    )
    seconds = sum(facts[name]["seconds"] for name in ("gradients", "blanket", "update"))
    refused = "refused " if verdict is Outcome.REFUSED else ""
    return RunRecord(
        experiment_id=materials.experiment_id,
        name=f"{refused}removal from {materials.parent.label}",
        params=lineage.params(record),
        metrics={
            **facts["validate"]["metrics"],
            Metric.REMOVED_IN_ALL: float(lineage.removed_in_all),
            Metric.SECONDS: seconds,
        },
        artifacts={
            Artifact.EVIDENCE: json.dumps({"outcome": job.outcome, "stages": facts}, indent=1, sort_keys=True),
            Artifact.CONFIG: job.config.model_dump_json(indent=2),
            Artifact.TRAINING_RECORD: record.to_json(),
        },
        tags={tags.REMOVAL_KEY: job.outcome, tags.VERDICT: verdict.value},
    )


def _description(materials: Materials, run_record: RunRecord) -> str:
    job, metrics = materials.job, run_record.metrics
    retrained = " retrained |" if Metric.TEST_LOSS + OF_RETRAINED in metrics else ""
    lines = [
        f"{run_record.params[Param.REMOVED]} samples removed from version {job.parent_version} without retraining "
        f"({run_record.params[Param.REMOVED_IN_ALL]} since training).",
        "",
        f"| | parent | this version |{retrained}",
        "|---|---|---|" + ("---|" if retrained else ""),
    ]
    for name in _DESCRIBED:
        cells = [metrics[name + suffix] for suffix in (OF_PARENT, "", OF_RETRAINED) if name + suffix in metrics]
        if cells:
            lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |")
    if run_record.params[Param.PRIVACY] != "none":
        lines += ["", run_record.params[Param.PRIVACY]]
    lines += ["", "A record of what was run and measured. It does not prove that nothing of the samples is left."]
    return "\n".join(lines)


def _outcome(materials: Materials, status: Status, version: str | None, run_id: str | None) -> RemovalOutcome:
    job = materials.job
    fetched = job.area.require("fetch").facts
    return RemovalOutcome(
        status=status,
        outcome=job.outcome,
        model=job.model,
        parent_version=job.parent_version,
        version=version,
        run_id=run_id,
        removed=fetched["removed"],
        already_removed=fetched["already_removed"],
        unknown=fetched["unknown"],
    )
