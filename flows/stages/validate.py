"""Validate: what the parent, the updated and (where asked) the retrained model do, and the gate's verdict."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from oubli.components.evaluation import (
    Evaluation,
    evaluate,
    parameter_distance,
    prediction_divergence,
    retained_gradient_norm,
)
from oubli.components.gate import (
    EmptyBlockEvidence,
    GateEvidence,
    GateLimits,
    IndefiniteEvidence,
    UnsolvedEvidence,
    UpdateEvidence,
    judge,
)
from oubli.components.objective import Objective
from oubli.flows.stages.materials import Materials
from oubli.registry.models.weights import load_weights
from oubli.registry.removals.removal_job import RemovalJob
from oubli.registry.settings import Settings
from oubli.registry.storage.work_area import StageResult


@dataclass(frozen=True)
class _Measured:
    """One model on the three sets. gradient_norm: ||grad F_R||."""

    forget: Evaluation
    retained: Evaluation
    test: Evaluation
    gradient_norm: float

    def metrics(self, suffix: str = "") -> dict[str, float]:
        """By name. A suffix, so that MLflow's alphabetical pages show a figure of all models side by side."""
        named = {"forget": self.forget, "retained": self.retained, "test": self.test}
        found = {f"{name}_loss{suffix}": one.loss for name, one in named.items()}
        found |= {f"{name}_accuracy{suffix}": one.accuracy for name, one in named.items() if one.accuracy is not None}
        return found | {f"retained_gradient_norm{suffix}": self.gradient_norm}


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
        }
        evidence, updated = _evidence(materials, parent, metrics)
        _compare_with_retraining(materials, updated, metrics)
        verdict = judge(
            evidence,
            GateLimits(accuracy_drop=job.config.max_test_accuracy_drop, loss_rise=job.config.max_test_loss_rise),
        )
        return {
            "metrics": metrics,
            "accepted": not verdict.reasons,
            "reasons": [{"code": reason.code.value, "sentence": reason.sentence} for reason in verdict.reasons],
            "seconds": time.perf_counter() - started,
        }

    judged = ["update", "retrain"] if job.config.compare_with_retraining else ["update"]
    return job.area.run("validate", compute, inputs=judged)


def _evidence(materials: Materials, parent: _Measured, metrics: dict[str, float]) -> tuple[GateEvidence, Tensor | None]:
    stage = materials.job.area.require("update")
    match stage.facts.get("finding"):
        case "indefinite":
            return IndefiniteEvidence(stage.facts["detail"]), None
        case "unsolved":
            return UnsolvedEvidence(stage.facts["detail"]), None
        case "empty_block":
            return EmptyBlockEvidence(candidates=materials.job.area.require("blanket").facts["candidate_slices"]), None
    # What is measured is the registered model: its weights rounded to its own number format.
    theta = materials.theta_of(_module(materials, "update"))
    updated = _measure(materials, materials.objective, theta)
    metrics |= updated.metrics()
    evidence = UpdateEvidence(
        convex=materials.recipe.record.convex,
        weights_finite=bool(torch.isfinite(theta).all()),
        test_before=parent.test,
        test_after=updated.test,
        gradient_before=parent.gradient_norm,
        gradient_after=updated.gradient_norm,
    )
    return evidence, theta


def _compare_with_retraining(materials: Materials, updated: Tensor | None, metrics: dict[str, float]) -> None:
    stage = materials.job.area.finished("retrain")
    if stage is None:
        return
    # An objective of its own: retraining also made its own buffers, batch-normalisation statistics among them.
    objective = materials.objective_of(_module(materials, "retrain"))
    retrained = objective.theta()
    metrics |= _measure(materials, objective, retrained).metrics("_retrained")
    metrics["seconds_retrained"] = stage.facts["seconds"]
    if updated is None:
        return
    divergence = prediction_divergence((materials.objective, updated), (objective, retrained), materials.removed)
    if divergence is not None:
        metrics["forget_divergence_from_retrained"] = divergence
    if materials.recipe.record.convex:
        # Elsewhere two trainings end in different minima, and a distance would say nothing.
        metrics["parameter_distance_to_retrained"] = parameter_distance(updated, retrained, relative_to=materials.theta)


def _measure(materials: Materials, objective: Objective, theta: Tensor) -> _Measured:
    return _Measured(
        forget=evaluate(objective, theta, materials.removed),
        retained=evaluate(objective, theta, materials.retained),
        test=evaluate(objective, theta, materials.test),
        gradient_norm=retained_gradient_norm(objective, theta, materials.retained),
    )


def _module(materials: Materials, stage: str) -> nn.Module:
    with materials.job.area.require(stage).open("weights.safetensors") as path:
        return materials.recipe.module(load_weights(path))
