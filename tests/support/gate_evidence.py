"""The figures of good updates, which the gate's tests change one at a time."""

from __future__ import annotations

from dataclasses import replace

from standings import FORGOTTEN

from oubli.components.gate.evidence import Beside, GateEvidence, UpdateEvidence, Utility
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.refusals import RefusalCode
from oubli.components.gate.verdict import Decision, judge
from oubli.components.measures.paired import Paired


def accuracy(
    before: float, after: float, *, n: int = 1000, error: float = 0.0, beside: Beside = Beside.PARENT
) -> Utility:
    """Accuracies of another model and of the updated one on n test samples."""
    return Utility(beside, Paired(n, before, after, error), by_loss=False)


GOOD = UpdateEvidence(
    convex=True,
    weights_finite=True,
    gradient_before=1e-3,
    gradient_after=1e-6,
    utility=(accuracy(0.950, 0.949),),
)
"""Of a convex model."""

NETWORK = replace(GOOD, convex=False, acceptance=FORGOTTEN)


def codes(evidence: GateEvidence, limits: GateLimits | None = None) -> list[RefusalCode]:
    """Which rules refuse."""
    verdict = judge(evidence, limits or GateLimits())
    assert (verdict.decision is Decision.REFUSED) == bool(verdict.reasons)
    assert all(reason.remedy and reason.sentence.endswith(reason.remedy) for reason in verdict.reasons)
    return [reason.code for reason in verdict.reasons]
