"""Validate: what the parent, the updated and (where asked) the retrained model do, and the gate's verdict."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from oubli.components.gate.evidence import (
    EmptyBlockEvidence,
    GateEvidence,
    IndefiniteEvidence,
    MembershipEvidence,
    UnsolvedEvidence,
    UpdateEvidence,
)
from oubli.components.gate.verdict import judge
from oubli.components.measures.evaluation import parameter_distance, prediction_divergence, tug_of_war
from oubli.components.measures.measurement import Measurement, measure
from oubli.components.model.objective import Objective
from oubli.flows.job.account import capacity_metrics
from oubli.flows.job.materials import Materials
from oubli.registry.models.weights import load_weights
from oubli.registry.removals.removal_job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings


def validate(settings: Settings, job: RemovalJob) -> StageResult:
    """Facts: `metrics` by name, `accepted`, and `reasons` with a code and a sentence each."""

    def compute(_folder: Path) -> dict[str, Any]:
        materials = Materials(settings, job)
        started = time.perf_counter()
        parent = _measure(materials, materials.objective, materials.theta)
        metrics = {
            **parent.metrics("_parent"),
            "forget_samples": len(materials.removed),
            "retained_samples": len(materials.retained),
            "test_samples": len(materials.test),
            "removed_since_training": materials.account.removed,
        }
        evidence, updated, theta = _evidence(materials, parent, metrics)
        _compare_with_retraining(materials, updated, theta, metrics)
        verdict = judge(evidence, job.config.limits)
        if verdict.distance_bound is not None:
            metrics["distance_bound"] = verdict.distance_bound
        return {
            "metrics": metrics,
            "accepted": not verdict.reasons,
            "reasons": [{"code": reason.code.value, "sentence": reason.sentence} for reason in verdict.reasons],
            "not_checked": list(verdict.not_checked),
            "privacy": _privacy(evidence),
            "seconds": time.perf_counter() - started,
        }

    judged = ["update", "retrain"] if job.config.compare_with_retraining else ["update"]
    return job.area.run("validate", compute, inputs=judged)


def _evidence(
    materials: Materials, parent: Measurement, metrics: dict[str, float]
) -> tuple[GateEvidence, Measurement | None, Tensor | None]:
    """What the gate judges; the updated model's figures and weights, where an update was made."""
    stage = materials.job.area.require("update")
    match stage.facts.get("finding"):
        case "indefinite":
            return IndefiniteEvidence(stage.facts["detail"]), None, None
        case "unsolved":
            return UnsolvedEvidence(stage.facts["detail"]), None, None
        case "empty_block":
            candidates = materials.job.area.require("blanket").facts["candidate_slices"]
            return EmptyBlockEvidence(candidates=candidates), None, None
    # What is measured is the registered model: its weights rounded to its own number format.
    theta = materials.theta_of(_module(materials, "update"))
    updated = _measure(materials, materials.objective, theta)
    metrics |= updated.metrics()
    account = materials.account
    statement = account.statement(materials.theta, stage.facts, whole=materials.block() is None)
    metrics |= {name: stage.facts[name] for name in ("model_gradient", "removal_gradient")}
    if statement is not None:
        metrics |= capacity_metrics(statement)
    without_noise = stage.facts["gradient_without_noise"]
    is_origin = account.origin is not None and account.origin.version == materials.parent.version
    evidence = UpdateEvidence(
        convex=materials.recipe.record.convex,
        weights_finite=bool(torch.isfinite(theta).all()),
        test_before=parent.sets.test,
        test_after=updated.sets.test,
        gradient_before=parent.gradient_norm,
        # The step is judged without the noise, what is served with it.
        gradient_after=updated.gradient_norm if without_noise is None else without_noise,
        test_original=parent.sets.test if is_origin else account.test_of_origin(),
        model_gradient=stage.facts["model_gradient"],
        removal_gradient=stage.facts["removal_gradient"],
        class_shares=account.class_shares(),
        membership=_membership_evidence(parent, updated),
        capacity=statement,
        l2=materials.recipe.record.l2,
    )
    return evidence, updated, theta


def _membership_evidence(parent: Measurement, updated: Measurement) -> MembershipEvidence | None:
    """What the gate is told of membership inference; None where it could not be measured."""
    before, after, retained = parent.forget_membership, updated.forget_membership, parent.retained_membership
    if before is None or after is None or retained is None:
        return None
    return MembershipEvidence(before.auc, after.auc, retained.auc)


def _privacy(evidence: GateEvidence) -> str:
    """What the run says of privacy, in words."""
    if not isinstance(evidence, UpdateEvidence) or evidence.capacity is None:
        return "none"
    return evidence.capacity.sentence


def _compare_with_retraining(
    materials: Materials, updated: Measurement | None, theta: Tensor | None, metrics: dict[str, float]
) -> None:
    stage = materials.job.area.finished("retrain")
    if stage is None:
        return
    # An objective of its own: retraining also made its own buffers, batch-normalisation statistics among them.
    module = _module(materials, "retrain")
    objective, retrained = materials.objective_of(module), materials.theta_of(module)
    reference = _measure(materials, objective, retrained)
    metrics |= reference.metrics("_retrained")
    metrics["seconds_retrained"] = stage.facts["seconds"]
    if updated is None or theta is None:
        return
    if (closeness := tug_of_war(updated.sets, reference.sets)) is not None:
        metrics["tug_of_war"] = closeness
    divergence = prediction_divergence((materials.objective, theta), (objective, retrained), materials.removed)
    if divergence is not None:
        metrics["forget_divergence_from_retrained"] = divergence
    if materials.recipe.record.convex:
        # Elsewhere two trainings end in different minima, and a distance would say nothing.
        metrics["parameter_distance_to_retrained"] = parameter_distance(theta, retrained, relative_to=materials.theta)


def _measure(materials: Materials, objective: Objective, theta: Tensor) -> Measurement:
    return measure(objective, theta, materials.removed, materials.retained, materials.test)


def _module(materials: Materials, stage: str) -> nn.Module:
    with materials.job.area.require(stage).open("weights.safetensors") as path:
        return materials.recipe.module(load_weights(path))
