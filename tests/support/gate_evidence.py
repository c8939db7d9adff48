"""The figures of a good update, which the gate's tests change one at a time."""

from __future__ import annotations

from oubli.components.gate.evidence import GateEvidence, UpdateEvidence
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.rules import RefusalCode
from oubli.components.gate.verdict import Decision, judge
from oubli.components.measures.evaluation import Evaluation

GOOD = UpdateEvidence(
    convex=True,
    weights_finite=True,
    test_before=Evaluation(1000, 0.20, 0.950),
    test_after=Evaluation(1000, 0.21, 0.949),
    gradient_before=1e-3,
    gradient_after=1e-6,
)


def codes(evidence: GateEvidence, limits: GateLimits | None = None) -> list[RefusalCode]:
    """Which rules refuse."""
    verdict = judge(evidence, limits or GateLimits())
    assert (verdict.decision is Decision.REFUSED) == bool(verdict.reasons)
    assert all("Retrain" in reason.sentence for reason in verdict.reasons)
    return [reason.code for reason in verdict.reasons]
