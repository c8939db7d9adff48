"""The rules of the gate: one function each, which says what it refuses and why.

Axes: n training samples, m of them removed, C classes.

A convex update is judged by how far it may be from retraining, a network by models that never saw the removed samples
(`acceptance_rules`). A rule whose figure was not measured is skipped, and named: nobody is told that more was checked
than was. Of a network, the retained gradient, the share of a class and membership inference alone are evidence that no
rule looks at: they do not tell a model that forgot from one that did not.
"""

from __future__ import annotations

import math

from oubli.components.gate.acceptance_rules import Acceptance, Broken, accept
from oubli.components.gate.evidence import Beside, UpdateEvidence, Utility
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.refusals import Refusal, RefusalCode, refusal

ROUNDING = 1e-6
"""Within this share of the weights' norm, two sets of weights are one: float32 keeps no more of a sum over samples."""

_FOUND = {
    RefusalCode.DISAGREES: (
        "It disagrees with one who never saw the removed samples more on them than on held-out samples that are as "
        "hard: by {found:.2f} of their standard deviations; at most {limit:.2f} is allowed."
    ),
    RefusalCode.TOO_SURE: (
        "It is surer of the removed samples' labels than of those of held-out samples that are as hard: their margins "
        "rank {found:.2f} above the middle; at most {limit:.2f} is allowed."
    ),
    RefusalCode.KNOWS_LABELS: (
        "It predicts more of the removed samples as labelled than one who never saw them: {found:.1%} more than on "
        "held-out samples; at most {limit:.1%} is allowed."
    ),
    RefusalCode.PUSHED_AWAY: (
        "It was pushed away from the removed samples' labels: their margins rank at {found:.2f} among all pairs of a "
        "held-out sample and a class; at least {limit:.2f} is allowed."
    ),
    RefusalCode.OVERSHOT: (
        "It overshot: its loss on the removed samples is {found:.3g}, far above that of one who never saw them; at "
        "most {limit:.3g} is allowed."
    ),
    RefusalCode.DRIFTED: (
        "It drifted where nothing was removed: on held-out samples it disagrees with one who never saw the removed "
        "ones {found:.2f} times as much as before; at most {limit:.2f} times is allowed."
    ),
    RefusalCode.HELD_OUT_ACCURACY_FELL: (
        "Accuracy on the held-out samples fell by at least {found:.4f}, at a confidence of 95 %; the limit is "
        "{limit:.4f}."
    ),
}
"""What each rule of acceptance says where it refuses."""


def broken_rules(evidence: UpdateEvidence, limits: GateLimits) -> tuple[Refusal, ...]:
    """Every rule that the update breaks, among those whose figures were measured."""
    # Figures that are not finite would pass every comparison below, or fail it for the wrong reason.
    if broken := _not_finite(evidence):
        return tuple(broken)
    own = _distance(evidence, limits) if evidence.convex else _network(evidence, limits)
    return (*_utility(evidence, limits), *own, *_capacity(evidence))


def acceptance_of(evidence: UpdateEvidence, limits: GateLimits) -> Acceptance | None:
    """What models that never saw the removed samples say of a network; None where none was asked."""
    if evidence.convex or evidence.acceptance is None:
        return None
    return accept(evidence.acceptance, limits)


def rules_not_checked(evidence: UpdateEvidence) -> tuple[str, ...]:
    """The rules that were skipped, each as the figure that was not measured for it."""
    beside = {one.beside for one in evidence.utility}
    chain = Beside.TRAINED in beside or Beside.RETRAINED in beside
    bound = not evidence.convex or evidence.relative_bound is not None
    measured = {
        "Utility: no test sample was compared.": bool(evidence.utility),
        "Utility since training: the trained model was not compared.": chain or not evidence.utility,
        "Distance from retraining: l2 is 0, or the weights' norm was not given.": bound,
        "Acceptance: the model was not compared with models that never saw the removed samples.": (
            evidence.convex or evidence.acceptance is not None
        ),
        "Deletion capacity: no account was kept.": evidence.capacity is not None,
    }
    return tuple(sentence for sentence, given in measured.items() if not given)


def remarks(evidence: UpdateEvidence, limits: GateLimits) -> tuple[str, ...]:
    """What a reader of the verdict should know beside the reasons."""
    found = []
    left_out = max((one.left_out for one in evidence.compared), default=0)
    if left_out:
        found.append(
            f"{left_out} test samples of classes or subjects that are removed were left out of the comparison of "
            f"accuracy: retraining loses as much on them."
        )
    if evidence.equals_retraining(limits.distance):
        found.append(
            f"The weights equal those of retraining to {evidence.relative_bound:.2g} of their norm, by proof: accuracy "
            "was no reason to refuse."
        )
    return tuple(found)


def _not_finite(evidence: UpdateEvidence) -> list[Refusal]:
    figures = {
        "retained gradient norm before": evidence.gradient_before,
        "retained gradient norm after": evidence.gradient_after,
        "model gradient norm": evidence.model_gradient,
        "removal gradient norm": evidence.removal_gradient,
        **{f"test figure of {one.beside}": one.figure.first for one in evidence.utility},
        "test figure after": evidence.utility[0].figure.second if evidence.utility else None,
    }
    broken = [
        f"the {name} is {value}" for name, value in figures.items() if value is not None and not math.isfinite(value)
    ]
    if not evidence.weights_finite:
        broken.insert(0, "some updated weights are NaN or infinite")
    if not broken:
        return []
    finding = f"Not finite where only finite numbers pass: {', '.join(broken)}."
    return [refusal(RefusalCode.NOT_FINITE, finding, evidence.step)]


def _utility(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    """What users notice: only a fall beyond the limit that the test samples are enough to be sure of."""
    if evidence.equals_retraining(limits.distance):
        return []
    found = (_loss_of_utility(one, evidence, limits) for one in evidence.compared)
    return [reason for reason in found if reason is not None]


def _loss_of_utility(one: Utility, evidence: UpdateEvidence, limits: GateLimits) -> Refusal | None:
    figure, chain = one.figure, one.beside is Beside.TRAINED
    rows = f"on {figure.n} test samples" + (
        f", {one.left_out} of removed classes or subjects left out" * bool(one.left_out)
    )
    if one.by_loss:
        limit = limits.loss_rise * abs(figure.first)
        # Written so that rounding at the limit does not refuse.
        if figure.sure_rise <= limit + 1e-12:
            return None
        code = RefusalCode.LOSS_ROSE_SINCE_TRAINING if chain else RefusalCode.TEST_LOSS_ROSE
        finding = (
            f"Test loss is {figure.second:.4g}, that of {one.beside} {figure.first:.4g} ({rows}): it rose by at least "
            f"{figure.sure_rise:.4g}, at a confidence of 95 %; the limit is a rise of {limits.loss_rise:.2%}."
        )
        return refusal(code, finding, evidence.step)
    if figure.sure_fall <= limits.accuracy_drop + 1e-12:
        return None
    code = RefusalCode.ACCURACY_FELL_SINCE_TRAINING if chain else RefusalCode.TEST_ACCURACY_FELL
    finding = (
        f"Test accuracy is {figure.second:.4f}, that of {one.beside} {figure.first:.4f} ({rows}): it fell by at least "
        f"{figure.sure_fall:.4f}, at a confidence of 95 %; the limit is {limits.accuracy_drop:.4f}."
    )
    return refusal(code, finding, evidence.step)


def _distance(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    """A convex update ends at the minimiser without the samples, wherever it started from."""
    before, after, bound = evidence.gradient_before, evidence.gradient_after, evidence.relative_bound
    if bound is not None and bound > limits.distance and after > limits.gradient_floor:
        finding = (
            f"The weights may be {bound:.2g} of their norm from those of retraining; at most {limits.distance:.2g} is "
            "allowed."
        )
        return [refusal(RefusalCode.FAR_FROM_RETRAINING, finding, evidence.step)]
    limit = max(limits.convex_gradient_fraction * before, limits.gradient_floor)
    if after <= limit or (bound is not None and bound <= ROUNDING):
        return []
    finding = (
        f"The retained gradient norm of a convex model fell only from {before:.3g} to {after:.3g}; at most {limit:.3g} "
        "may be left."
    )
    return [refusal(RefusalCode.RETAINED_GRADIENT_REMAINS, finding, evidence.step)]


def _network(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    acceptance = acceptance_of(evidence, limits)
    areas = evidence.membership
    recognised = None if areas is None else areas.retrained
    if acceptance is None and evidence.auditor_failed:
        return [refusal(RefusalCode.AUDITOR_FAILED, evidence.auditor_failed, evidence.step)]
    if acceptance is None and recognised is None:
        finding = "Nothing shows whether the network forgot: no model that never saw the removed samples was asked."
        return [refusal(RefusalCode.NOT_COMPARED, finding, evidence.step)]
    broken = [] if acceptance is None else [_unaccepted(one, evidence) for one in acceptance.broken]
    return [*broken, *_membership(evidence, limits)]


def _unaccepted(broken: Broken, evidence: UpdateEvidence) -> Refusal:
    return refusal(broken.rule, _FOUND[broken.rule].format(found=broken.found, limit=broken.limit), evidence.step)


def _membership(evidence: UpdateEvidence, limits: GateLimits) -> list[Refusal]:
    """Beside a retrained model alone: what the area would be without one, nobody knows."""
    areas = evidence.membership
    if areas is None or areas.retrained is None:
        return []
    limit = areas.retrained + limits.membership_off + areas.error
    # Written so that a figure that is not finite does not pass.
    if areas.after <= limit + 1e-12:
        return []
    finding = (
        f"Membership inference tells the removed samples from test samples with an area of {areas.after:.3f} (before: "
        f"{areas.before:.3f}; on the retrained model: {areas.retrained:.3f}); at most {limit:.3f} is allowed."
    )
    return [refusal(RefusalCode.STILL_RECOGNISED, finding, evidence.step)]


def _capacity(evidence: UpdateEvidence) -> list[Refusal]:
    account = evidence.capacity
    if account is None or not account.spent:
        return []
    finding = (
        f"{account.removed} samples were removed since training; the capacity is {account.capacity}: they need noise "
        f"of {account.sigma:.3g}, and at most {account.max_noise:.3g} is allowed."
    )
    return [refusal(RefusalCode.CAPACITY_SPENT, finding, evidence.step)]
