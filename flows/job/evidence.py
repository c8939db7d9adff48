"""What the gate is told of a removal, from what its stages left and what was measured on its models."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from oubli.components.curvature.snapshots.snapshot import SnapshotForm
from oubli.components.gate.acceptance import AcceptanceStatistics, acceptance_statistics
from oubli.components.gate.evidence import (
    Beside,
    EmptyBlockEvidence,
    GateEvidence,
    IndefiniteEvidence,
    MembershipEvidence,
    Step,
    UnsolvedEvidence,
    UpdateEvidence,
    Utility,
)
from oubli.components.gate.ranks import OnBoth
from oubli.components.measures.measurement import Measurement
from oubli.flows.job.counted import counted_rows
from oubli.flows.job.facts import (
    AUDIT_OUTPUTS,
    AUDITORS,
    AuditFacts,
    EmptyBlock,
    Indefinite,
    Made,
    Matched,
    Stage,
    Unsolved,
    UpdateFacts,
)
from oubli.flows.job.materials import Materials
from oubli.flows.job.measured import Measured, held_out_labels, test_figures_as_trained
from oubli.registry.models.weights import load_weights


@dataclass(frozen=True)
class Models:
    """The models of a removal; None where there is none."""

    parent: Measured
    updated: Measured | None
    retrained: Measured | None


def gate_evidence(materials: Materials, attempt: UpdateFacts, models: Models) -> GateEvidence:
    """The figures of the update, or why there is none."""
    match attempt:
        case Indefinite():
            return IndefiniteEvidence(attempt.detail)
        case Unsolved():
            return UnsolvedEvidence(attempt.detail, _step(attempt))
        case EmptyBlock():
            return EmptyBlockEvidence(candidates=attempt.candidate_slices)
        case Made() | Matched() if models.updated is None:
            return UnsolvedEvidence("The update left no weights.", _step(attempt))
        case Made() | Matched():
            return _of_update(materials, attempt, models, models.updated)


def _of_update(materials: Materials, attempt: Made | Matched, models: Models, updated: Measured) -> UpdateEvidence:
    account, record = materials.account, materials.model.record
    newton = attempt if isinstance(attempt, Made) else None
    without_noise = None if newton is None else newton.gradient_without_noise
    return UpdateEvidence(
        convex=record.convex,
        weights_finite=bool(torch.isfinite(updated.theta).all()),
        gradient_before=models.parent.figures.gradient_norm,
        # The step is judged without the noise, what is served with it.
        gradient_after=updated.figures.gradient_norm if without_noise is None else without_noise,
        step=_step(attempt),
        utility=_utility(materials, models, updated),
        acceptance=_acceptance(materials, models, updated),
        auditor_failed=_auditor_failed(materials),
        model_gradient=None if newton is None else newton.model_gradient,
        removal_gradient=None if newton is None else newton.removal_gradient,
        class_shares=account.class_shares,
        membership=_membership(models, updated.figures),
        capacity=(
            None if newton is None else account.statement(materials.theta, newton, whole=materials.block() is None)
        ),
        l2=record.l2,
        weight_norm=float(updated.theta.norm()),
    )


def _step(attempt: Made | Matched | Unsolved) -> Step:
    """How the update was made."""
    if attempt.curvature is None:
        return Step.MATCHING
    return Step.SNAPSHOT if isinstance(attempt.curvature, SnapshotForm) else Step.NEWTON


def _utility(materials: Materials, models: Models, updated: Measured) -> tuple[Utility, ...]:
    """On the test rows that count: beside the parent, the model as it was trained, and the retrained one."""
    gone = materials.job.config.limits.class_gone
    counted = counted_rows(materials.data, materials.account, materials.data.test, gone)
    others = {
        Beside.PARENT: models.parent.figures.test_figures,
        Beside.TRAINED: test_figures_as_trained(materials, models.parent),
        Beside.RETRAINED: None if models.retrained is None else models.retrained.figures.test_figures,
    }
    own = updated.figures.test_figures
    found = [
        Utility.of(beside, other, own, counted)
        for beside, other in others.items()
        if other is not None and own is not None
    ]
    return tuple(one for one in found if one is not None)


def _acceptance(materials: Materials, models: Models, updated: Measured) -> AcceptanceStatistics | None:
    """A network beside the retrained model, where there is one, else beside two auditors."""
    kind = materials.objective.kind
    if materials.model.record.convex or kind is None:
        return None
    if models.retrained is not None:
        judge, witness = models.retrained.outputs(materials), None
    else:
        auditors = _auditors(materials)
        if auditors is None:
            return None
        judge, witness = auditors
    gone = materials.job.config.limits.class_gone
    return acceptance_statistics(
        kind,
        updated=updated.outputs(materials),
        original=models.parent.outputs(materials),
        judge=judge,
        witness=witness,
        labels=held_out_labels(materials),
        counted=counted_rows(materials.data, materials.account, materials.data.held_out, gone),
    )


def _auditors(materials: Materials) -> tuple[OnBoth, OnBoth] | None:
    """The calibrated outputs of judge and witness; None where no auditors were trained."""
    area = materials.job.area
    stage = area.finished(Stage.AUDIT, AuditFacts)
    if stage is None or stage.facts.auditors == 0:
        return None
    with area.open(Stage.AUDIT, AUDIT_OUTPUTS) as path:
        tables = load_weights(path)
    judge, witness = (OnBoth(tables[f"{name}.removed"], tables[f"{name}.held_out"]) for name in AUDITORS)
    return judge, witness


def _auditor_failed(materials: Materials) -> str:
    stage = materials.job.area.finished(Stage.AUDIT, AuditFacts)
    return "" if stage is None else stage.facts.failed


def _membership(models: Models, updated: Measurement) -> MembershipEvidence | None:
    """What the gate is told of membership inference; None where it could not be measured."""
    parent = models.parent.figures
    before, after, retained = parent.forget_membership, updated.forget_membership, parent.retained_membership
    if before is None or after is None or retained is None:
        return None
    retrained = None if models.retrained is None else models.retrained.figures.forget_membership
    return MembershipEvidence(
        before.auc, after.auc, retained.auc, None if retrained is None else retrained.auc, before.chance_error
    )
