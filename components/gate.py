"""Whether an updated model may be promoted.

An update that is not good enough is refused with its reasons, and the removal goes to retraining.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from oubli.components.errors import ConfigurationError
from oubli.components.evaluation import Evaluation


class Outcome(StrEnum):
    """The gate's answer."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


class RefusalCode(StrEnum):
    """Which rule refused."""

    TEST_ACCURACY_FELL = "test_accuracy_fell"
    TEST_LOSS_ROSE = "test_loss_rose"
    RETAINED_GRADIENT_ROSE = "retained_gradient_rose"
    CURVATURE_INDEFINITE = "curvature_indefinite"
    NOTHING_SELECTED = "nothing_selected"
    NOT_SOLVED = "not_solved"
    NOT_FINITE = "not_finite"


@dataclass(frozen=True)
class GateLimits:
    """What an update may cost.

    accuracy_drop: of test accuracy, absolute (0.01 is one percentage point). loss_rise: of test loss, relative to
    the original's; it applies where the loss has no accuracy. gradient_floor: retained gradient norms up to this
    count as zero, so that rounding at a minimum is no rise.
    """

    accuracy_drop: float = 0.01
    loss_rise: float = 0.05
    gradient_floor: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("accuracy_drop", "loss_rise", "gradient_floor"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(
                    f"Gate limit {name} is {value}; it must be finite and not negative.",
                    remedy=f"Leave it out for the default, or give a number such as {getattr(GateLimits, name)}.",
                )


@dataclass(frozen=True)
class UpdateEvidence:
    """What was measured on an update that was made.

    test_*: on the test set; gradient_*: ||grad F_R|| of the original and the updated weights.
    """

    convex: bool
    weights_finite: bool
    test_before: Evaluation
    test_after: Evaluation
    gradient_before: float
    gradient_after: float


@dataclass(frozen=True)
class IndefiniteEvidence:
    """The update could not be made: the damped curvature was indefinite, as `finding` says with its figures."""

    finding: str


@dataclass(frozen=True)
class EmptyBlockEvidence:
    """No update was tried: selection chose none of `candidates` slices for any removed sample."""

    candidates: int


@dataclass(frozen=True)
class UnsolvedEvidence:
    """The update could not be computed to its tolerance, or from finite numbers, as `finding` says with its figures."""

    finding: str


GateEvidence = UpdateEvidence | IndefiniteEvidence | UnsolvedEvidence | EmptyBlockEvidence


@dataclass(frozen=True)
class Refusal:
    """One reason: the rule, and a sentence with what was measured, the limit, and what to do."""

    code: RefusalCode
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The outcome and every reason for a refusal; accepted has none."""

    outcome: Outcome
    reasons: tuple[Refusal, ...]


REMEDY = "Retrain the model without the removed samples."


def judge(evidence: GateEvidence, limits: GateLimits) -> Verdict:
    """Accepted only where every rule holds; otherwise refused, with every rule that does not."""
    if isinstance(evidence, IndefiniteEvidence):
        reasons = [_refusal(RefusalCode.CURVATURE_INDEFINITE, f"{evidence.finding} No update was made.")]
    elif isinstance(evidence, UnsolvedEvidence):
        reasons = [_refusal(RefusalCode.NOT_SOLVED, f"{evidence.finding} No update was made.")]
    elif isinstance(evidence, EmptyBlockEvidence):
        sentence = f"Selection chose none of {evidence.candidates} slices, so the update would change nothing."
        reasons = [_refusal(RefusalCode.NOTHING_SELECTED, sentence)]
    else:
        # Figures that are not finite would pass every comparison below, or fail it for the wrong reason.
        reasons = _not_finite(evidence) or [*_utility(evidence, limits), *_gradient(evidence, limits)]
    return Verdict(Outcome.REFUSED if reasons else Outcome.ACCEPTED, tuple(reasons))


def _not_finite(evidence: UpdateEvidence) -> list[Refusal]:
    figures = {
        "test loss before": evidence.test_before.loss,
        "test loss after": evidence.test_after.loss,
        "retained gradient norm before": evidence.gradient_before,
        "retained gradient norm after": evidence.gradient_after,
    }
    found = [f"the {name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
    if not evidence.weights_finite:
        found.insert(0, "some updated weights are NaN or infinite")
    if not found:
        return []
    return [_refusal(RefusalCode.NOT_FINITE, f"Not finite where only finite numbers pass: {', '.join(found)}.")]


def _utility(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    before, after = evidence.test_before, evidence.test_after
    if before.accuracy is not None and after.accuracy is not None:
        drop = before.accuracy - after.accuracy
        # Accuracies are multiples of 1/n: a drop at the limit must not fail by the last bit of a subtraction.
        if drop <= limits.accuracy_drop + 1e-12:
            return []
        sentence = (
            f"Test accuracy fell by {drop:.4f}, from {before.accuracy:.4f} to {after.accuracy:.4f}; "
            f"the limit is {limits.accuracy_drop:.4f}."
        )
        return [_refusal(RefusalCode.TEST_ACCURACY_FELL, sentence)]
    if after.loss <= before.loss + limits.loss_rise * abs(before.loss):
        return []
    sentence = (
        f"Test loss rose from {before.loss:.4g} to {after.loss:.4g}; the limit is a rise of {limits.loss_rise:.2%}."
    )
    return [_refusal(RefusalCode.TEST_LOSS_ROSE, sentence)]


def _gradient(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    limit = max(evidence.gradient_before, limits.gradient_floor)
    if not evidence.convex or evidence.gradient_after <= limit:
        return []
    sentence = (
        f"The retained gradient norm of a convex model rose from {evidence.gradient_before:.3g} to "
        f"{evidence.gradient_after:.3g}; the limit is {limit:.3g}."
    )
    return [_refusal(RefusalCode.RETAINED_GRADIENT_ROSE, sentence)]


def _refusal(code: RefusalCode, sentence: str) -> Refusal:
    return Refusal(code, f"{sentence} {REMEDY}")
