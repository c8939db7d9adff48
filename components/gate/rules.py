"""The rules of the gate: one function each, which says what it refuses and why.

Axes: n training samples, m of them removed, C classes.

A rule whose figure was not measured is skipped, and named: nobody is told that more was checked than was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from oubli.components.gate.evidence import UpdateEvidence
from oubli.components.gate.limits import GateLimits
from oubli.components.measures.evaluation import Evaluation

REMEDY = "Retrain the model without the removed samples."


class RefusalCode(StrEnum):
    """Which rule refused."""

    TEST_ACCURACY_FELL = "test_accuracy_fell"
    TEST_LOSS_ROSE = "test_loss_rose"
    ACCURACY_FELL_SINCE_TRAINING = "accuracy_fell_since_training"
    LOSS_ROSE_SINCE_TRAINING = "loss_rose_since_training"
    RETAINED_GRADIENT_ROSE = "retained_gradient_rose"
    RETAINED_GRADIENT_REMAINS = "retained_gradient_remains"
    MODEL_NOT_AT_MINIMUM = "model_not_at_minimum"
    CLASS_SHARE = "class_share"
    STILL_RECOGNISED = "still_recognised"
    CAPACITY_SPENT = "capacity_spent"
    CURVATURE_INDEFINITE = "curvature_indefinite"
    NOTHING_SELECTED = "nothing_selected"
    NOT_SOLVED = "not_solved"
    NOT_FINITE = "not_finite"


@dataclass(frozen=True)
class Refusal:
    """One reason: the rule, and a sentence with what was measured, the limit, and what to do."""

    code: RefusalCode
    sentence: str


def refusal(code: RefusalCode, sentence: str) -> Refusal:
    """The reason with its remedy."""
    return Refusal(code, f"{sentence} {REMEDY}")


def broken_rules(evidence: UpdateEvidence, limits: GateLimits) -> tuple[Refusal, ...]:
    """Every rule that the update breaks, among those whose figures were measured."""
    # Figures that are not finite would pass every comparison below, or fail it for the wrong reason.
    return tuple(_not_finite(evidence)) or (
        *_utility(evidence, limits),
        *_utility_since_training(evidence, limits),
        *_gradient(evidence, limits),
        *_minimum(evidence, limits),
        *_class_share(evidence, limits),
        *_membership(evidence, limits),
        *_capacity(evidence),
    )


def rules_not_checked(evidence: UpdateEvidence) -> tuple[str, ...]:
    """The rules that were skipped, each as the figure that was not measured for it."""
    measured = {
        "Utility since training: the trained model's test figures were not given.": evidence.test_original is not None,
        "Model at a minimum: its gradient or the removal's was not measured.": (
            evidence.model_gradient is not None and evidence.removal_gradient is not None
        ),
        "Share of a class: the removed samples' classes were not counted.": (
            evidence.convex or evidence.class_shares is not None
        ),
        "Membership of the removed samples: it was not measured.": evidence.convex or evidence.membership is not None,
        "Deletion capacity: no account was kept.": evidence.capacity is not None,
    }
    return tuple(sentence for sentence, given in measured.items() if not given)


def _not_finite(evidence: UpdateEvidence) -> list[Refusal]:
    figures = {
        "test loss before": evidence.test_before.loss,
        "test loss after": evidence.test_after.loss,
        "retained gradient norm before": evidence.gradient_before,
        "retained gradient norm after": evidence.gradient_after,
        "trained model's test loss": None if evidence.test_original is None else evidence.test_original.loss,
        "model gradient norm": evidence.model_gradient,
        "removal gradient norm": evidence.removal_gradient,
    }
    broken = [
        f"the {name} is {value}" for name, value in figures.items() if value is not None and not math.isfinite(value)
    ]
    if not evidence.weights_finite:
        broken.insert(0, "some updated weights are NaN or infinite")
    if not broken:
        return []
    return [refusal(RefusalCode.NOT_FINITE, f"Not finite where only finite numbers pass: {', '.join(broken)}.")]


def _utility(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    codes = (RefusalCode.TEST_ACCURACY_FELL, RefusalCode.TEST_LOSS_ROSE)
    return _loss_of_utility(evidence.test_before, evidence.test_after, limits, codes, "")


def _utility_since_training(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    """The same limits over a whole chain: it may not lose, bit by bit, what no single removal may."""
    # For the first removal the rule above has the same figures.
    if evidence.test_original is None or evidence.test_original == evidence.test_before:
        return []
    codes = (RefusalCode.ACCURACY_FELL_SINCE_TRAINING, RefusalCode.LOSS_ROSE_SINCE_TRAINING)
    return _loss_of_utility(evidence.test_original, evidence.test_after, limits, codes, " since training")


def _loss_of_utility(
    before: Evaluation, after: Evaluation, limits: GateLimits, codes: tuple[RefusalCode, RefusalCode], since: str
) -> list[Refusal]:
    if before.accuracy is not None and after.accuracy is not None:
        drop = before.accuracy - after.accuracy
        # Accuracies are multiples of 1/n: a drop at the limit must not fail by the last bit of a subtraction.
        if drop <= limits.accuracy_drop + 1e-12:
            return []
        sentence = (
            f"Test accuracy fell{since} by {drop:.4f}, from {before.accuracy:.4f} to {after.accuracy:.4f}; "
            f"the limit is {limits.accuracy_drop:.4f}."
        )
        return [refusal(codes[0], sentence)]
    if after.loss <= before.loss + limits.loss_rise * abs(before.loss):
        return []
    sentence = (
        f"Test loss rose{since} from {before.loss:.4g} to {after.loss:.4g}; "
        f"the limit is a rise of {limits.loss_rise:.2%}."
    )
    return [refusal(codes[1], sentence)]


def _gradient(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    before, after = evidence.gradient_before, evidence.gradient_after
    allowed = 0.0 if evidence.convex else limits.gradient_rise
    limit = max((1 + allowed) * before, limits.gradient_floor)
    if after > limit:
        sentence = f"The retained gradient norm rose from {before:.3g} to {after:.3g}; the limit is {limit:.3g}."
        return [refusal(RefusalCode.RETAINED_GRADIENT_ROSE, sentence)]
    limit = max(limits.convex_gradient_fraction * before, limits.gradient_floor)
    if not evidence.convex or after <= limit:
        return []
    sentence = (
        f"The retained gradient norm of a convex model fell only from {before:.3g} to {after:.3g}; "
        f"at most {limit:.3g} may be left."
    )
    return [refusal(RefusalCode.RETAINED_GRADIENT_REMAINS, sentence)]


def _minimum(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    """The update takes the retained gradient to be made of the removed samples alone, as it is at a minimum."""
    model, removal = evidence.model_gradient, evidence.removal_gradient
    if model is None or removal is None or model <= max(limits.gradient_ratio * removal, limits.gradient_floor):
        return []
    sentence = (
        f"The model was not trained to a minimum: its gradient norm is {model:.3g}, that of the removal {removal:.3g}; "
        f"the limit is {limits.gradient_ratio:g} times the removal's."
    )
    return [refusal(RefusalCode.MODEL_NOT_AT_MINIMUM, sentence)]


def _class_share(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    """One step from where a network is does not reach the network that never saw most of a class."""
    if evidence.convex or not evidence.class_shares:
        return []
    label, share = max(evidence.class_shares.items(), key=lambda item: item[1])
    if share <= limits.class_share + 1e-12:
        return []
    sentence = (
        f"The removals take {share:.1%} of the training samples of class {label} from a model that is not convex; "
        f"the limit is {limits.class_share:.1%}."
    )
    return [refusal(RefusalCode.CLASS_SHARE, sentence)]


def _membership(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    """A network that has memorised its samples, and an update that has not undone it."""
    areas = evidence.membership
    if evidence.convex or areas is None:
        return []
    # Below chance nothing is recognised. Written so that a figure that is not finite does not pass.
    if areas.after <= max(areas.expected + limits.membership_left, 0.5) + 1e-12:
        return []
    sentence = (
        f"The removed samples are still recognised: membership inference tells them from test samples with an area of "
        f"{areas.after:.3f} (before: {areas.before:.3f}); of a model that never saw them about {areas.expected:.3f} is "
        f"expected, as it tells the retained ones with {areas.retained:.3f}; the limit is {limits.membership_left:.3f} "
        f"more."
    )
    return [refusal(RefusalCode.STILL_RECOGNISED, sentence)]


def _capacity(evidence: UpdateEvidence) -> list[Refusal]:
    account = evidence.capacity
    if account is None or not account.spent:
        return []
    sentence = (
        f"{account.removed} samples were removed since training; the capacity is {account.capacity}: they need noise "
        f"of {account.sigma:.3g}, and at most {account.max_noise:.3g} is allowed."
    )
    return [refusal(RefusalCode.CAPACITY_SPENT, sentence)]
