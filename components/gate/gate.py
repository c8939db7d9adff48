"""Whether an updated model may be promoted.

An update that is not good enough is refused with its reasons, and the removal goes to retraining.

Axes: n training samples, m of them removed, C classes.

A rule whose figure was not measured is skipped, and the verdict lists it: nobody is told more than was looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from oubli.components.errors import ConfigurationError
from oubli.components.gate.capacity import CapacityStatement, measured_gamma
from oubli.components.measures.evaluation import Evaluation
from oubli.components.removal.damping import GRADIENT_RISE


class Outcome(StrEnum):
    """The gate's answer."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


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
class GateLimits:
    """What an update may cost, and what it may start from.

    accuracy_drop: of test accuracy, absolute (0.01 is one percentage point). loss_rise: of test loss, relative to
    the earlier model's; it applies where the loss has no accuracy. Both hold against the parent and, over a chain of
    removals, against the model that was trained.
    gradient_floor: gradient norms up to this count as zero, so that rounding at a minimum is no rise.
    gradient_rise: by how much the retained gradient norm of a network may rise, relative to before; a convex model's
    may not.
    gradient_ratio: the largest ||grad F_S(w*)|| of the model before the update, in units of the removal's own gradient:
    above it, what was never trained to the end outweighs what is removed.
    convex_gradient_fraction: the share of the retained gradient that the update of a convex model may leave.
    class_share: the largest share of a class's training samples that may be removed from a model that is not convex.
    membership_left: by how much membership inference may tell the removed samples better than it is expected to of a
    network that never saw them, where it tells them better than chance.
    """

    accuracy_drop: float = 0.01
    loss_rise: float = 0.05
    gradient_floor: float = 1e-6
    gradient_rise: float = GRADIENT_RISE
    gradient_ratio: float = 10.0
    convex_gradient_fraction: float = 1e-2
    class_share: float = 0.25
    membership_left: float = 0.05

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(
                    f"Gate limit {name} is {value}; it must be finite and not negative.",
                    remedy=f"Leave it out for the default, or give a number such as {getattr(GateLimits, name)}.",
                )


@dataclass(frozen=True)
class MembershipEvidence:
    """Areas under the curve of membership inference against test samples (`membership`).

    before, after: of the removed samples, by the weights before and after the update. retained: of the retained
    samples, by the weights before.
    """

    before: float
    after: float
    retained: float

    @property
    def expected(self) -> float:
        """Of the removed samples by a model that never saw them, as far as can be said without it.

        Training made its samples recognisable by `retained` over chance; the removed ones should lose that much, and
        keep what they are recognised by for being easy or hard.
        """
        return self.before - (self.retained - 0.5)


@dataclass(frozen=True)
class UpdateEvidence:
    """What was measured on an update that was made. None: not measured.

    test_*: on the test set; gradient_*: ||grad F_R|| of the weights before and after the update.
    test_original: of the model that was trained, where the parent came from it by removals; for the first removal, that
    of the parent.
    model_gradient: ||grad F_S|| of the weights before, S being all they stand for, the removed samples included.
    removal_gradient: (1/(n-m)) ||sum over the removed of (grad loss + l2 w)||, at the same weights.
    class_shares: per class, the share of its training samples that were removed since training (`class_shares`);
    empty where samples have no class.
    membership: how well the removed samples, and the retained ones, can be told from test samples.
    capacity: the accountant's statement, this removal included.
    l2: the coefficient of F's l2 term, which must cover all trained parameters.
    """

    convex: bool
    weights_finite: bool
    test_before: Evaluation
    test_after: Evaluation
    gradient_before: float
    gradient_after: float
    test_original: Evaluation | None = None
    model_gradient: float | None = None
    removal_gradient: float | None = None
    class_shares: Mapping[int, float] | None = None
    membership: MembershipEvidence | None = None
    capacity: CapacityStatement | None = None
    l2: float | None = None

    @property
    def distance_bound(self) -> float | None:
        """||grad F_R(w-)|| / l2, which ||w- - w_R|| does not exceed, w_R being the minimiser of F_R.

        By strong convexity; None where the model is not convex or l2 is not known to be positive. w- are the weights
        that `gradient_after` is of: noise that was added later is beside it.
        """
        if not self.convex or not self.l2:
            return None
        return measured_gamma(self.gradient_after, self.l2) if math.isfinite(self.gradient_after) else None


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
    """The outcome and every reason for a refusal; accepted has none.

    not_checked: the rules that were skipped, as what was not measured for them. distance_bound: as UpdateEvidence's.
    """

    outcome: Outcome
    reasons: tuple[Refusal, ...]
    not_checked: tuple[str, ...] = ()
    distance_bound: float | None = None


REMEDY = "Retrain the model without the removed samples."


def judge(evidence: GateEvidence, limits: GateLimits) -> Verdict:
    """Accepted only where every rule that could be checked holds; otherwise refused, with every rule that does not."""
    if isinstance(evidence, UpdateEvidence):
        return _judge_update(evidence, limits)
    if isinstance(evidence, IndefiniteEvidence):
        reason = _refusal(RefusalCode.CURVATURE_INDEFINITE, f"{evidence.finding} No update was made.")
    elif isinstance(evidence, UnsolvedEvidence):
        reason = _refusal(RefusalCode.NOT_SOLVED, f"{evidence.finding} No update was made.")
    else:
        sentence = f"Selection chose none of {evidence.candidates} slices, so the update would change nothing."
        reason = _refusal(RefusalCode.NOTHING_SELECTED, sentence)
    return Verdict(Outcome.REFUSED, (reason,))


def _judge_update(evidence: UpdateEvidence, limits: GateLimits) -> Verdict:
    # Figures that are not finite would pass every comparison below, or fail it for the wrong reason.
    reasons = _not_finite(evidence) or [
        *_utility(evidence, limits),
        *_utility_since_training(evidence, limits),
        *_gradient(evidence, limits),
        *_minimum(evidence, limits),
        *_class_share(evidence, limits),
        *_membership(evidence, limits),
        *_capacity(evidence),
    ]
    outcome = Outcome.REFUSED if reasons else Outcome.ACCEPTED
    return Verdict(outcome, tuple(reasons), _not_checked(evidence), evidence.distance_bound)


def _not_checked(evidence: UpdateEvidence) -> tuple[str, ...]:
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
    found = [
        f"the {name} is {value}" for name, value in figures.items() if value is not None and not math.isfinite(value)
    ]
    if not evidence.weights_finite:
        found.insert(0, "some updated weights are NaN or infinite")
    if not found:
        return []
    return [_refusal(RefusalCode.NOT_FINITE, f"Not finite where only finite numbers pass: {', '.join(found)}.")]


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
        return [_refusal(codes[0], sentence)]
    if after.loss <= before.loss + limits.loss_rise * abs(before.loss):
        return []
    sentence = (
        f"Test loss rose{since} from {before.loss:.4g} to {after.loss:.4g}; "
        f"the limit is a rise of {limits.loss_rise:.2%}."
    )
    return [_refusal(codes[1], sentence)]


def _gradient(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    before, after = evidence.gradient_before, evidence.gradient_after
    allowed = 0.0 if evidence.convex else limits.gradient_rise
    limit = max((1 + allowed) * before, limits.gradient_floor)
    if after > limit:
        sentence = f"The retained gradient norm rose from {before:.3g} to {after:.3g}; the limit is {limit:.3g}."
        return [_refusal(RefusalCode.RETAINED_GRADIENT_ROSE, sentence)]
    limit = max(limits.convex_gradient_fraction * before, limits.gradient_floor)
    if not evidence.convex or after <= limit:
        return []
    sentence = (
        f"The retained gradient norm of a convex model fell only from {before:.3g} to {after:.3g}; "
        f"at most {limit:.3g} may be left."
    )
    return [_refusal(RefusalCode.RETAINED_GRADIENT_REMAINS, sentence)]


def _minimum(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    """The update takes the retained gradient to be made of the removed samples alone, as it is at a minimum."""
    model, removal = evidence.model_gradient, evidence.removal_gradient
    if model is None or removal is None or model <= max(limits.gradient_ratio * removal, limits.gradient_floor):
        return []
    sentence = (
        f"The model was not trained to a minimum: its gradient norm is {model:.3g}, that of the removal {removal:.3g}; "
        f"the limit is {limits.gradient_ratio:g} times the removal's."
    )
    return [_refusal(RefusalCode.MODEL_NOT_AT_MINIMUM, sentence)]


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
    return [_refusal(RefusalCode.CLASS_SHARE, sentence)]


def _membership(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    """A network that has memorised its samples, and an update that has not undone it."""
    found = evidence.membership
    if evidence.convex or found is None:
        return []
    # Below chance nothing is recognised. Written so that a figure that is not finite does not pass.
    if found.after <= max(found.expected + limits.membership_left, 0.5) + 1e-12:
        return []
    sentence = (
        f"The removed samples are still recognised: membership inference tells them from test samples with an area of "
        f"{found.after:.3f} (before: {found.before:.3f}); of a model that never saw them about {found.expected:.3f} is "
        f"expected, as it tells the retained ones with {found.retained:.3f}; the limit is {limits.membership_left:.3f} "
        f"more."
    )
    return [_refusal(RefusalCode.STILL_RECOGNISED, sentence)]


def _capacity(evidence: UpdateEvidence) -> list[Refusal]:
    account = evidence.capacity
    if account is None or not account.spent:
        return []
    sentence = (
        f"{account.removed} samples were removed since training; the capacity is {account.capacity}: they need noise "
        f"of {account.sigma:.3g}, and at most {account.max_noise:.3g} is allowed."
    )
    return [_refusal(RefusalCode.CAPACITY_SPENT, sentence)]


def _refusal(code: RefusalCode, sentence: str) -> Refusal:
    return Refusal(code, f"{sentence} {REMEDY}")
