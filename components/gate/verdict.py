"""Whether an updated model may be promoted.

An update that is not good enough is refused with its reasons, each with what helps. Where the model before it already
says of the removed samples what one who never saw them would, there was nothing to forget.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from oubli.components.gate.error_rates import NETWORKS
from oubli.components.gate.evidence import GateEvidence, IndefiniteEvidence, UnsolvedEvidence, UpdateEvidence
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.refusals import Refusal, RefusalCode, refusal
from oubli.components.gate.rules import acceptance_of, broken_rules, remarks, rules_not_checked


class Decision(StrEnum):
    """The gate's answer."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NOTHING_TO_FORGET = "nothing_to_forget"


@dataclass(frozen=True)
class Verdict:
    """The decision, and every reason for a refusal.

    Attributes:
        decision: accepted, refused, or that there was nothing to forget.
        reasons: the rules that were broken; empty where accepted.
        not_checked: the rules that were skipped, each as the figure that was not measured for it.
        remarks: what a reader should know beside the reasons, the verdict's own error rates among it.
        nothing_to_forget: the parent itself says of the removed samples what one who never saw them would.
        distance_bound: `UpdateEvidence.distance_bound`.
    """

    decision: Decision
    reasons: tuple[Refusal, ...]
    not_checked: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    nothing_to_forget: bool = False
    distance_bound: float | None = None


def judge(evidence: GateEvidence, limits: GateLimits, *, record_nothing: bool = True) -> Verdict:
    """Accept an update only where every rule that could be checked holds.

    Args:
        evidence: the figures of an update, or why there is none.
        limits: what it may cost.
        record_nothing: whether 'nothing to forget' is a decision of its own, whatever the update did; else the update
            is judged as any other.

    Returns:
        The verdict, with every rule that is broken.
    """
    if isinstance(evidence, UpdateEvidence):
        return _of_update(evidence, limits, record_nothing)
    if isinstance(evidence, IndefiniteEvidence):
        reason = refusal(RefusalCode.CURVATURE_INDEFINITE, f"{evidence.finding} No update was made.")
    elif isinstance(evidence, UnsolvedEvidence):
        reason = refusal(RefusalCode.NOT_SOLVED, f"{evidence.finding} No update was made.", evidence.step)
    else:
        finding = f"Selection chose none of {evidence.candidates} slices, so the update would change nothing."
        reason = refusal(RefusalCode.NOTHING_SELECTED, finding)
    return Verdict(Decision.REFUSED, (reason,))


def _of_update(evidence: UpdateEvidence, limits: GateLimits, record_nothing: bool) -> Verdict:
    reasons = broken_rules(evidence, limits)
    acceptance = acceptance_of(evidence, limits)
    nothing = acceptance is not None and acceptance.nothing_to_forget
    said = remarks(evidence, limits)
    if acceptance is not None and evidence.acceptance is not None and evidence.acceptance.witness is not None:
        said = (*said, NETWORKS.sentence)
    if nothing and record_nothing:
        decision, reasons = Decision.NOTHING_TO_FORGET, ()
    else:
        decision = Decision.REFUSED if reasons else Decision.ACCEPTED
    return Verdict(decision, reasons, rules_not_checked(evidence), said, nothing, evidence.distance_bound)
