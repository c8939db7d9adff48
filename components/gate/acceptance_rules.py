"""Whether a removal from a network is accepted, from the statistics of `acceptance`.

A removal must have taken away what the model knew of the removed samples, and no more. What it *still remembers* is
looked for in three ways, each of which is 0 where it never saw them: its divergence from the judge, its rank among
held-out samples, and how many it predicts as labelled. Each may be as large as its limit, and, of few samples, as
chance makes it in one of ten; but never more than a share of what the original has: a model that was hardly changed
passes by no allowance. Where the original itself is within the limits, without any allowance, there was nothing to
forget. What it *overshot* shows in what it says of held-out samples, in the loss on the removed ones, and in their rank
among all pairs of a sample and a class.

What the rules miss and what they refuse in error stands in `error_rates`. They separate failures; they do not certify
closeness. Auditors and surrogate share the bias of short training.
"""

from __future__ import annotations

from dataclasses import dataclass

from oubli.components.gate.acceptance import AcceptanceStatistics, Standing
from oubli.components.gate.limits import AcceptanceLimits
from oubli.components.gate.refusals import RefusalCode

ONE_IN_TEN = 1.2816
"""Standard errors above the mean that a normal figure exceeds in one of ten."""

RANK_SPREAD = 12**-0.5
"""Standard deviation of a rank that may be anything from 0 to 1."""


@dataclass(frozen=True)
class Broken:
    """A rule that refuses, with what was found and the most, or the least, that it allows."""

    rule: RefusalCode
    found: float
    limit: float


@dataclass(frozen=True)
class Acceptance:
    """The decision.

    Attributes:
        broken: The rules that refuse; empty where the removal is accepted.
        nothing_to_forget: The original model itself says of the removed samples what one who never saw them would.
    """

    broken: tuple[Broken, ...]
    nothing_to_forget: bool

    @property
    def accepted(self) -> bool:
        return not self.broken


@dataclass(frozen=True)
class _Trace:
    """One sign of what a model still remembers: its value in both models, the limit, and what chance adds."""

    rule: RefusalCode
    updated: float
    original: float
    limit: float
    error: float

    def most(self, left: float) -> float:
        """The largest value that is allowed."""
        return max(self.limit, min(self.limit + ONE_IN_TEN * self.error, left * self.original))


def accept(statistics: AcceptanceStatistics, limits: AcceptanceLimits | None = None) -> Acceptance:
    """Apply the rules; a figure that is NaN breaks its rule, one that was not measured breaks none."""
    limits = limits or AcceptanceLimits()
    traces = _traces(statistics, limits)
    allowed = [(trace.rule, trace.updated, trace.most(limits.memory_left)) for trace in traces]
    allowed += _overshoot(statistics, limits)
    broken = [Broken(rule, found, most) for rule, found, most in allowed if not found <= most]
    least = _least_rank(statistics, limits)
    over_classes = statistics.updated.rank_over_classes
    if over_classes is not None and least is not None and not over_classes >= least:
        broken.append(Broken(RefusalCode.PUSHED_AWAY, over_classes, least))
    return Acceptance(tuple(broken), all(trace.original <= trace.limit for trace in traces))


def _traces(statistics: AcceptanceStatistics, limits: AcceptanceLimits) -> list[_Trace]:
    updated, original, chance = statistics.updated, statistics.original, statistics.chance
    traces = [
        _Trace(
            RefusalCode.DISAGREES,
            updated.excess_divergence,
            original.excess_divergence,
            limits.excess_divergence,
            chance,
        ),
        _Trace(
            RefusalCode.TOO_SURE,
            updated.rank - 0.5,
            original.rank - 0.5,
            limits.excess_rank,
            chance * RANK_SPREAD,
        ),
    ]
    now, before = statistics.excess_as_labelled(updated), statistics.excess_as_labelled(original)
    spread = statistics.as_labelled_spread
    if now is not None and before is not None and spread is not None:
        limit = limits.excess_as_labelled
        traces.append(_Trace(RefusalCode.KNOWS_LABELS, now, before, limit, chance * spread))
    return traces


def _overshoot(statistics: AcceptanceStatistics, limits: AcceptanceLimits) -> list[tuple[RefusalCode, float, float]]:
    """Rules with a largest value: each with what was found and the limit."""
    judge: Standing = statistics.judge
    largest = limits.overshoot * (judge.loss_removed + judge.loss_held_out)
    found = [
        (RefusalCode.DRIFTED, statistics.drift, limits.drift),
        (RefusalCode.OVERSHOT, statistics.updated.loss_removed, largest),
    ]
    if statistics.accuracy is not None:
        found.append((RefusalCode.HELD_OUT_ACCURACY_FELL, statistics.accuracy.sure_fall, limits.accuracy_drop))
    return found


def _least_rank(statistics: AcceptanceStatistics, limits: AcceptanceLimits) -> float | None:
    """The least rank over all classes: so far below that of one who never saw the samples; None without classes."""
    reference = statistics.witness or statistics.judge
    if reference.rank_over_classes is None:
        return None
    allowance = ONE_IN_TEN * statistics.chance * RANK_SPREAD
    return reference.rank_over_classes - limits.pushed_away - allowance
