"""What a removal's MLflow run shows: params, metrics, the evidence of its stages, and a description for the version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from oubli.components.gate.error_rates import NETWORKS
from oubli.components.gate.verdict import Decision
from oubli.flows.job.facts import (
    UPDATE_FACTS,
    AuditFacts,
    BlockFacts,
    FetchFacts,
    GradientFacts,
    Made,
    RetrainFacts,
    Stage,
    SurrogateFacts,
    UpdateFacts,
    ValidateFacts,
)
from oubli.flows.job.model_side import ModelSide
from oubli.registry.models import tags
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.registration import RunRecord
from oubli.registry.models.tags import OF_PARENT, OF_RETRAINED, Artifact, Metric, Param
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.work_area import WorkArea

_DESCRIBED = (
    Metric.FORGET_LOSS,
    Metric.RETAINED_LOSS,
    Metric.TEST_LOSS,
    Metric.FORGET_ACCURACY,
    Metric.RETAINED_ACCURACY,
    Metric.TEST_ACCURACY,
)
"""The figures that a version's description shows."""


@dataclass(frozen=True)
class Findings:
    """What the stages before `register` found out, each under its stage's name."""

    fetch: FetchFacts
    gradients: GradientFacts
    blanket: BlockFacts
    surrogate: SurrogateFacts | None
    update: UpdateFacts
    retrain: RetrainFacts | None
    audit: AuditFacts | None
    validate: ValidateFacts

    @classmethod
    def read(cls, area: WorkArea) -> Findings:
        """All of them from the work area.

        Raises:
            ObjectMissing: A stage that every removal runs has not finished.
        """
        surrogate = area.finished(Stage.SURROGATE, SurrogateFacts)
        retrain = area.finished(Stage.RETRAIN, RetrainFacts)
        audit = area.finished(Stage.AUDIT, AuditFacts)
        return cls(
            fetch=area.require(Stage.FETCH, FetchFacts).facts,
            gradients=area.require(Stage.GRADIENTS, GradientFacts).facts,
            blanket=area.require(Stage.BLANKET, BlockFacts).facts,
            surrogate=None if surrogate is None else surrogate.facts,
            update=area.require(Stage.UPDATE, UPDATE_FACTS).facts,
            retrain=None if retrain is None else retrain.facts,
            audit=None if audit is None else audit.facts,
            validate=area.require(Stage.VALIDATE, ValidateFacts).facts,
        )

    @property
    def seconds(self) -> float:
        """What the removal itself took, without what measures it."""
        surrogate = 0.0 if self.surrogate is None else self.surrogate.seconds
        return self.gradients.seconds + self.blanket.seconds + surrogate + self.update.seconds

    def evidence(self) -> dict[str, object]:
        """By stage, as JSON values."""
        facts: dict[str, BaseModel | None] = vars(self)
        return {stage: found.model_dump(mode="json") for stage, found in facts.items() if found is not None}


def run_record(job: RemovalJob, model: ModelSide, findings: Findings) -> RunRecord:
    """What the run of a removal shows, whether it was accepted or refused.

    Args:
        job: The removal.
        model: The parent and its training record.
        findings: What the stages found out.
    """
    fetch, decision, record = findings.fetch, findings.validate.decision, model.record
    lineage = Lineage(
        method=Method.UNLEARNED,
        verdict=decision.value,
        parent_version=job.parent_version,
        request_ids=fetch.request_ids,
        removed=fetch.removed,
        removed_in_all=fetch.removed + fetch.removed_before,
        removal_digest=job.removal_digest,
        config_digest=job.config.digest(),
        selection=findings.blanket.selection.value,
        curvature=findings.update.curvature_words,
        damping=findings.update.damping,
        verdict_errors=_verdict_errors(findings.validate),
        privacy=findings.validate.privacy,
    )
    evidence = {"removal_key": job.key, "stages": findings.evidence()}
    refused = {Decision.REFUSED: "refused ", Decision.NOTHING_TO_FORGET: "nothing to forget, "}.get(decision, "")
    return RunRecord(
        experiment_id=model.experiment_id,
        name=f"{refused}removal from {model.parent.label}",
        params=lineage.params(record),
        metrics={
            **findings.validate.metrics,
            Metric.REMOVED_IN_ALL: float(lineage.removed_in_all),
            Metric.SECONDS: findings.seconds,
            **_passes(findings.update),
        },
        artifacts={
            Artifact.EVIDENCE: json.dumps(evidence, indent=1, sort_keys=True),
            Artifact.CONFIG: job.config.model_dump_json(indent=2),
            Artifact.TRAINING_RECORD: record.to_json(),
        },
        tags={tags.REMOVAL_KEY: job.key, tags.VERDICT: decision.value},
    )


def _passes(update: UpdateFacts) -> dict[str, float]:
    """What the way to a convex model's minimiser cost."""
    return {Metric.UPDATE_PASSES: float(update.passes)} if isinstance(update, Made) and update.passes else {}


def _verdict_errors(found: ValidateFacts) -> str:
    """How often such a verdict is wrong, where auditors gave it; a retrained model makes none of these errors."""
    asked = found.acceptance is not None and found.acceptance.witness is not None
    return NETWORKS.sentence if asked else "none"


def description(job: RemovalJob, shown: RunRecord, remarks: Sequence[str] = ()) -> str:
    """The new version's description: its main figures beside the parent's, in Markdown.

    Args:
        job: The removal.
        shown: What its run shows.
        remarks: Of the gate.
    """
    params, metrics = shown.params, shown.metrics
    retrained = " retrained |" if Metric.TEST_LOSS + OF_RETRAINED in metrics else ""
    lines = [
        _headline(job, params),
        "",
        f"| | parent | this version |{retrained}",
        "|---|---|---|" + ("---|" if retrained else ""),
    ]
    for name in _DESCRIBED:
        cells = [metrics[name + suffix] for suffix in (OF_PARENT, "", OF_RETRAINED) if name + suffix in metrics]
        if cells:
            lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(f"{cell:.4f}" for cell in cells) + " |")
    for sentence in (*remarks, params[Param.PRIVACY]):
        lines += ["", sentence] if sentence != "none" else []
    lines += ["", "A record of what was run and measured. It does not prove that nothing of the samples is left."]
    return "\n".join(lines)


def _headline(job: RemovalJob, params: Mapping[str, str]) -> str:
    """What the version is, in one sentence or two."""
    if params[Param.VERDICT] == Decision.NOTHING_TO_FORGET:
        return (
            f"{params[Param.REMOVED]} samples removed from the record of version {job.parent_version}. Its weights are "
            f"those of version {job.parent_version}, unchanged: there was nothing to forget, as it already says of "
            f"these samples what a model that never saw them would ({params[Param.REMOVED_IN_ALL]} removed since "
            "training)."
        )
    return (
        f"{params[Param.REMOVED]} samples removed from version {job.parent_version} without retraining "
        f"({params[Param.REMOVED_IN_ALL]} since training)."
    )
