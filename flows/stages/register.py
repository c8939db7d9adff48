"""Register: an accepted update becomes a new version and gets its alias; a refusal leaves a run with its reasons."""

from __future__ import annotations

import json

import pyarrow.parquet as pq

from oubli.components.gate.verdict import Decision
from oubli.flows.job.materials import Materials
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import (
    Evidence,
    close_unfinished_runs,
    log_run,
    register_version,
    signature_for,
)
from oubli.registry.models.weights import load_weights, weights_digest
from oubli.registry.removals.aliases import move_alias
from oubli.registry.removals.removal_job import RemovalJob, RemovalOutcome, Status
from oubli.registry.removals.removed_ids import store_removed
from oubli.registry.settings import Settings
from oubli.registry.training.decoders import example_value

_STAGES = ("fetch", "gradients", "blanket", "update", "retrain", "validate")


def finished_outcome(registry: ModelRegistry, job: RemovalJob) -> RemovalOutcome | None:
    """How this very removal ended, where an earlier run finished it."""
    stage = job.area.finished("register")
    if stage is None:
        version = registry.by_outcome(job.model, job.outcome)
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
    if registry.by_outcome(job.model, job.outcome) is None:
        # Somebody deleted the version since; the work area can make it anew.
        return None
    return outcome.model_copy(update={"status": Status.ALREADY_DONE})


def register(settings: Settings, job: RemovalJob) -> RemovalOutcome:
    """Register what `validate` judged. The version appears once, however often this runs."""
    materials = Materials(settings, job)
    # A killed attempt at this outcome left its run open.
    close_unfinished_runs(materials.registry, materials.experiment_id, job.outcome)
    accepted = job.area.require("validate").facts["accepted"]
    outcome = _accepted(materials) if accepted else _refused(materials)
    job.area.record("register", outcome.model_dump(mode="json"), inputs=["validate"])
    return outcome


def _accepted(materials: Materials) -> RemovalOutcome:
    job, registry = materials.job, materials.registry
    version = registry.by_outcome(job.model, job.outcome) or _new_version(materials)
    advice = move_alias(registry, version, job.config.alias)
    outcome = _outcome(materials, Status.REGISTERED, version.version, version.run_id)
    return outcome.model_copy(update={"advice": advice})


def _refused(materials: Materials) -> RemovalOutcome:
    job, parent = materials.job, materials.parent
    run_id = log_run(
        materials.registry,
        experiment_id=materials.experiment_id,
        run_name=f"refused removal from {parent.label}",
        evidence=_evidence(materials, Decision.REFUSED),
    )
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
    evidence = _evidence(materials, Decision.ACCEPTED)
    return register_version(
        materials.registry,
        name=job.model,
        module=module,
        signature=materials.registry.signature(parent)
        or signature_for(module, materials.recipe.example(materials.removed_inputs.inputs)),
        example_value=example_value(materials.recipe.record.decoder),
        experiment_id=materials.experiment_id,
        run_name=f"removal from {parent.label}",
        evidence=evidence,
        version_tags={
            "oubli.method": Method.UNLEARNED.value,
            **parent.child_tags(),
            "oubli.outcome": job.outcome,
            "oubli.weights_sha256": weights_digest(weights),
            "oubli.record": parent.tags["oubli.record"],
            "oubli.record_sha256": parent.tags["oubli.record_sha256"],
            **store_removed(job.store_root, job.outcome, new_ids, materials.earlier),
        },
        description=_description(materials, evidence),
    )


def _evidence(materials: Materials, verdict: Decision) -> Evidence:
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
    return Evidence(
        params=lineage.params(record),
        metrics={
            **facts["validate"]["metrics"],
            "removed_in_all": float(lineage.removed_in_all),
            "seconds": seconds,
        },
        artifacts={
            "oubli/evidence.json": json.dumps({"outcome": job.outcome, "stages": facts}, indent=1, sort_keys=True),
            "oubli/config.json": job.config.model_dump_json(indent=2),
            "oubli/training_record.json": record.to_json(),
        },
        tags={"oubli.outcome": job.outcome, "oubli.verdict": verdict.value},
    )


def _description(materials: Materials, evidence: Evidence) -> str:
    job, metrics = materials.job, evidence.metrics
    lines = [
        f"{evidence.params['removed']} samples removed from version {job.parent_version} without retraining "
        f"({evidence.params['removed_in_all']} since training).",
        "",
        "| | parent | this version |" + (" retrained |" if "test_loss_retrained" in metrics else ""),
        "|---|---|---|" + ("---|" if "test_loss_retrained" in metrics else ""),
    ]
    for name in ("forget_loss", "retained_loss", "test_loss", "forget_accuracy", "retained_accuracy", "test_accuracy"):
        cells = [metrics[key] for key in (f"{name}_parent", name, f"{name}_retrained") if key in metrics]
        if cells:
            lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |")
    if evidence.params["privacy"] != "none":
        lines += ["", evidence.params["privacy"]]
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
