"""Whether an updated model may be promoted.

An update that is not good enough is refused with its reasons, and the removal goes to retraining.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from oubli.components.gate.evidence import GateEvidence, IndefiniteEvidence, UnsolvedEvidence, UpdateEvidence
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.rules import Refusal, RefusalCode, broken_rules, refusal, rules_not_checked


class Decision(StrEnum):
    """The gate's answer."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True)
class Verdict:
    """The decision, and every reason for a refusal.

    Attributes:
        decision: accepted or refused.
        reasons: the rules that were broken; empty where accepted.
        not_checked: the rules that were skipped, each as the figure that was not measured for it.
        distance_bound: `UpdateEvidence.distance_bound`.
    """

    decision: Decision
    reasons: tuple[Refusal, ...]
    not_checked: tuple[str, ...] = ()
    distance_bound: float | None = None


def judge(evidence: GateEvidence, limits: GateLimits) -> Verdict:
    """Accept an update only where every rule that could be checked holds.

    Args:
        evidence: the figures of an update, or why there is none.
        limits: what it may cost.

    Returns:
        The verdict, with every rule that is broken.
    """
    if isinstance(evidence, UpdateEvidence):
        reasons = broken_rules(evidence, limits)
        decision = Decision.REFUSED if reasons else Decision.ACCEPTED
        return Verdict(decision, reasons, rules_not_checked(evidence), evidence.distance_bound)
    if isinstance(evidence, IndefiniteEvidence):
        reason = refusal(RefusalCode.CURVATURE_INDEFINITE, f"{evidence.finding} No update was made.")
    elif isinstance(evidence, UnsolvedEvidence):
        reason = refusal(RefusalCode.NOT_SOLVED, f"{evidence.finding} No update was made.")
    else:
        sentence = f"Selection chose none of {evidence.candidates} slices, so the update would change nothing."
        reason = refusal(RefusalCode.NOTHING_SELECTED, sentence)
    return Verdict(Decision.REFUSED, (reason,))
