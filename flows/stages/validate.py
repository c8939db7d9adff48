"""Validate: what the parent, the updated and (where asked) the retrained model do, and the gate's verdict."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

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
from oubli.flows.job.facts import (
    UPDATE_FACTS,
    EmptyBlock,
    Indefinite,
    Made,
    Matched,
    RetrainFacts,
    Stage,
    Unsolved,
    ValidateFacts,
)
from oubli.flows.job.materials import Materials
from oubli.registry.models.tags import OF_PARENT, OF_RETRAINED, Metric
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings


@dataclass(frozen=True)
class _Updated:
    """The model that an update made. theta: its weights (d,), rounded to the registered model's number format."""

    measured: Measurement
    theta: Tensor


def validate(settings: Settings, job: RemovalJob) -> StageResult[ValidateFacts]:
    """Measure the parent, the updated and (where asked) the retrained model, and let the gate decide. No files."""

    def compute(_folder: Path) -> ValidateFacts:
        materials = Materials(settings, job)
        started = time.perf_counter()
        attempt = job.area.require(Stage.UPDATE, UPDATE_FACTS).facts
        parent = _measure(materials, materials.objective, materials.theta)
        metrics = {
            **parent.metrics(OF_PARENT),
            Metric.FORGET_SAMPLES: len(materials.removed),
            Metric.RETAINED_SAMPLES: len(materials.retained),
            Metric.TEST_SAMPLES: len(materials.test),
            Metric.REMOVED_SINCE_TRAINING: materials.account.removed,
        }
        updated = None
        if isinstance(attempt, Made | Matched):
            updated = _updated(materials)
            metrics |= updated.measured.metrics()
            evidence: GateEvidence = _update_evidence(materials, parent, attempt, updated, metrics)
        else:
            evidence = _no_update(attempt)
        metrics |= _comparison(materials, updated)
        verdict = judge(evidence, job.config.limits)
        if verdict.distance_bound is not None:
            metrics[Metric.DISTANCE_BOUND] = verdict.distance_bound
        return ValidateFacts(
            seconds=time.perf_counter() - started,
            metrics=metrics,
            decision=verdict.decision,
            reasons=verdict.reasons,
            not_checked=verdict.not_checked,
            privacy=_privacy(evidence),
        )

    judged = [Stage.UPDATE, Stage.RETRAIN] if job.config.compare_with_retraining else [Stage.UPDATE]
    return job.area.run(Stage.VALIDATE, ValidateFacts, compute, inputs=judged)


def _updated(materials: Materials) -> _Updated:
    module = materials.model.module_of(Stage.UPDATE)
    theta = materials.theta_of(module)
    # Matching moves statistics of batch normalisation, too.
    return _Updated(_measure(materials, materials.objective_of(module), theta), theta)


def _no_update(attempt: Indefinite | Unsolved | EmptyBlock) -> GateEvidence:
    match attempt:
        case Indefinite():
            return IndefiniteEvidence(attempt.detail)
        case Unsolved():
            return UnsolvedEvidence(attempt.detail)
        case EmptyBlock():
            return EmptyBlockEvidence(candidates=attempt.candidate_slices)


def _update_evidence(
    materials: Materials, parent: Measurement, update: Made | Matched, updated: _Updated, metrics: dict[str, float]
) -> UpdateEvidence:
    """What the gate judges an update by; `metrics` gets what is found on the way."""
    account, record = materials.account, materials.model.record
    statement = account.statement(materials.theta, update, whole=materials.block() is None)
    newton = update if isinstance(update, Made) else None
    if newton is not None:
        metrics |= {Metric.MODEL_GRADIENT: newton.model_gradient, Metric.REMOVAL_GRADIENT: newton.removal_gradient}
    if statement is not None:
        metrics |= capacity_metrics(statement)
    without_noise = None if newton is None else newton.gradient_without_noise
    is_origin = account.origin is not None and account.origin.version == materials.model.parent.version
    return UpdateEvidence(
        convex=record.convex,
        weights_finite=bool(torch.isfinite(updated.theta).all()),
        test_before=parent.sets.test,
        test_after=updated.measured.sets.test,
        gradient_before=parent.gradient_norm,
        # The step is judged without the noise, what is served with it.
        gradient_after=updated.measured.gradient_norm if without_noise is None else without_noise,
        test_original=parent.sets.test if is_origin else account.test_of_origin(),
        model_gradient=None if newton is None else newton.model_gradient,
        removal_gradient=None if newton is None else newton.removal_gradient,
        class_shares=account.class_shares(),
        membership=_membership_evidence(parent, updated.measured),
        capacity=statement,
        l2=record.l2,
    )


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


def _comparison(materials: Materials, updated: _Updated | None) -> dict[str, float]:
    """Figures of the model that was retrained for comparison, by name; empty where none was."""
    stage = materials.job.area.finished(Stage.RETRAIN, RetrainFacts)
    if stage is None:
        return {}
    # An objective of its own: retraining also made its own buffers, batch-normalisation statistics among them.
    module = materials.model.module_of(Stage.RETRAIN)
    objective, retrained = materials.objective_of(module), materials.theta_of(module)
    reference = _measure(materials, objective, retrained)
    metrics = {**reference.metrics(OF_RETRAINED), Metric.SECONDS + OF_RETRAINED: stage.facts.seconds}
    if updated is None:
        return metrics
    if (closeness := tug_of_war(updated.measured.sets, reference.sets)) is not None:
        metrics[Metric.TUG_OF_WAR] = closeness
    divergence = prediction_divergence((materials.objective, updated.theta), (objective, retrained), materials.removed)
    if divergence is not None:
        metrics[Metric.FORGET_DIVERGENCE_FROM_RETRAINED] = divergence
    if materials.model.record.convex:
        # Elsewhere two trainings end in different minima, and a distance would say nothing.
        metrics[Metric.PARAMETER_DISTANCE_TO_RETRAINED] = parameter_distance(
            updated.theta, retrained, relative_to=materials.theta
        )
    return metrics


def _measure(materials: Materials, objective: Objective, theta: Tensor) -> Measurement:
    return measure(objective, theta, materials.removed, materials.retained, materials.test)
