"""Validate: what the parent, the updated and (where asked) the retrained model do, and the gate's verdict."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from oubli.components.gate.acceptance import AcceptanceStatistics
from oubli.components.gate.evidence import UpdateEvidence
from oubli.components.gate.verdict import Decision, judge
from oubli.components.measures.evaluation import parameter_distance, prediction_divergence, tug_of_war
from oubli.flows.job.account import capacity_metrics
from oubli.flows.job.evidence import Models, gate_evidence
from oubli.flows.job.facts import (
    UPDATE_FACTS,
    EmptyBlock,
    Indefinite,
    RetrainFacts,
    Stage,
    Unsolved,
    ValidateFacts,
)
from oubli.flows.job.materials import Materials
from oubli.flows.job.measured import Measured, parent, retrained, updated
from oubli.registry.models.tags import OF_PARENT, OF_RETRAINED, Metric
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.unlearn_config import NothingToForget
from oubli.registry.removals.work_area import StageResult
from oubli.registry.settings import Settings


def validate(settings: Settings, job: RemovalJob) -> StageResult[ValidateFacts]:
    """Measure the parent, the updated and (where asked) the retrained model, and let the gate decide. No files."""

    def compute(_folder: Path) -> ValidateFacts:
        materials = Materials(settings, job)
        started = time.perf_counter()
        attempt = job.area.require(Stage.UPDATE, UPDATE_FACTS).facts
        made = not isinstance(attempt, Indefinite | Unsolved | EmptyBlock)
        models = Models(parent(materials), updated(materials) if made else None, retrained(materials))
        evidence = gate_evidence(materials, attempt, models)
        record = job.config.nothing_to_forget is not NothingToForget.UPDATE
        verdict = judge(evidence, job.config.limits, record_nothing=record)
        # Where there was nothing to forget, the new version's weights are the parent's.
        kept = models.parent if verdict.decision is Decision.NOTHING_TO_FORGET else models.updated
        return ValidateFacts(
            seconds=time.perf_counter() - started,
            metrics={
                **_measured(materials, models.parent, kept),
                **(_found(evidence, kept is models.parent) if isinstance(evidence, UpdateEvidence) else {}),
                **_comparison(materials, models.retrained, kept),
                **({} if verdict.distance_bound is None else {Metric.DISTANCE_BOUND: verdict.distance_bound}),
            },
            decision=verdict.decision,
            reasons=verdict.reasons,
            not_checked=verdict.not_checked,
            remarks=verdict.remarks,
            nothing_to_forget=verdict.nothing_to_forget,
            acceptance=evidence.acceptance if isinstance(evidence, UpdateEvidence) else None,
            privacy=(
                evidence.capacity.sentence
                if isinstance(evidence, UpdateEvidence) and evidence.capacity is not None
                else "none"
            ),
        )

    judged = [Stage.UPDATE]
    judged += [Stage.RETRAIN] if job.config.compare_with_retraining else []
    judged += [Stage.AUDIT] if job.audited else []
    return job.area.run(Stage.VALIDATE, ValidateFacts, compute, inputs=judged)


def _measured(materials: Materials, before: Measured, kept: Measured | None) -> dict[str, float]:
    """Each model's own figures, by name."""
    return {
        **before.figures.metrics(OF_PARENT),
        **({} if kept is None else kept.figures.metrics()),
        Metric.FORGET_SAMPLES: len(materials.removed),
        Metric.RETAINED_SAMPLES: len(materials.retained),
        Metric.TEST_SAMPLES: len(materials.test),
        Metric.REMOVED_SINCE_TRAINING: materials.account.removed,
    }


def _found(evidence: UpdateEvidence, unchanged: bool) -> dict[str, float]:
    """What the gate was told beside the models' own figures, by name; unchanged: the parent's weights are kept."""
    beside = evidence.acceptance
    if beside is not None and unchanged:
        beside = replace(beside, updated=beside.original)
    gradients = {
        Metric.MODEL_GRADIENT: evidence.model_gradient,
        Metric.REMOVAL_GRADIENT: evidence.removal_gradient,
    }
    return {
        **{name: value for name, value in gradients.items() if value is not None},
        **({} if evidence.capacity is None else capacity_metrics(evidence.capacity)),
        **({} if beside is None else _acceptance_metrics(beside)),
    }


def _acceptance_metrics(statistics: AcceptanceStatistics) -> dict[str, float]:
    """How parent and updated model stand beside one who never saw the removed samples, by name."""
    metrics = {Metric.HELD_OUT_DRIFT: statistics.drift}
    disagreement = {"": statistics.disagreement, OF_PARENT: statistics.original_disagreement}
    for suffix, model in (("", statistics.updated), (OF_PARENT, statistics.original)):
        figures = {
            Metric.DISAGREEMENT: disagreement[suffix],
            Metric.EXCESS_DIVERGENCE: model.excess_divergence,
            Metric.FORGET_RANK: model.rank,
            Metric.FORGET_RANK_OVER_CLASSES: model.rank_over_classes,
            Metric.EXCESS_AS_LABELLED: statistics.excess_as_labelled(model),
        }
        metrics |= {f"{name}{suffix}": value for name, value in figures.items() if value is not None}
    return metrics


def _comparison(materials: Materials, reference: Measured | None, kept: Measured | None) -> dict[str, float]:
    """Figures of the model that was retrained for comparison, by name; empty where none was."""
    stage = materials.job.area.finished(Stage.RETRAIN, RetrainFacts)
    if stage is None or reference is None:
        return {}
    metrics = {**reference.figures.metrics(OF_RETRAINED), Metric.SECONDS + OF_RETRAINED: stage.facts.seconds}
    if kept is not None:
        metrics |= _closeness(materials, kept, reference)
    return metrics


def _closeness(materials: Materials, own: Measured, reference: Measured) -> dict[str, float]:
    """How near the updated model is to the retrained one, by name."""
    metrics = {}
    if (closeness := tug_of_war(own.figures.sets, reference.figures.sets)) is not None:
        metrics[Metric.TUG_OF_WAR] = closeness
    divergence = prediction_divergence(
        (own.objective, own.theta), (reference.objective, reference.theta), materials.removed
    )
    if divergence is not None:
        metrics[Metric.FORGET_DIVERGENCE_FROM_RETRAINED] = divergence
    if materials.model.record.convex:
        # Elsewhere two trainings end in different minima, and a distance would say nothing.
        metrics[Metric.PARAMETER_DISTANCE_TO_RETRAINED] = parameter_distance(
            own.theta, reference.theta, relative_to=materials.theta
        )
    return metrics
