"""Whether a removal from a network is accepted where no retrained model is there to compare with.

Axes: m removed samples U, k held-out samples V (never in training), C classes, T further positions.

Two auditors are trained briefly on the retained samples alone, from fresh initialisations and other seeds than the
surrogate's, and calibrated to the original model on V by divergence (`removal.targets.calibrate`). With p the
predictions of the one, the judge, and f the updated model, f0 the original, a the other auditor, the witness:

    q    = [KL_U(p || f) / KL_V(p || f)] / [KL_U(p || a) / KL_V(p || a)]
    q0   = KL_U(p || f) / KL_U(p || f0)
    A    = mean over u in U of the share of u's NEIGHBOURS held-out samples, those with the nearest margin under the
           judge, whose margin under f is below u's

q near 1: f disagrees with the judge on U no more than on held-out samples of equal difficulty, as one who never saw U
does. q0 well below 1: something was forgotten. A near 1/2: f is no surer of U than of held-out samples like it; near 1
it still remembers, near 0 it was pushed away.

A takes for granted that labels on U come about as those on V do. Under labels that were drawn at random, a retrained
model's margins lie below those of nearly all held-out samples, which no model finds so unlikely: A is then near 0 for
every model that forgot. Beside it stands A over all classes, whose neighbours are pairs of a held-out sample and any
class: near 1/2 for retrained models on mislabelled sets, and a little above on random ones, as the true class of a
sample that was never seen is still likelier than its margin under the judge says. No rule uses it.

The limits were fitted on other sets than those they were tried on: of 448 models, 10 % of the good ones were refused,
10 % of the bad and 4 % of the grossly bad ones accepted. So this separates failures; it does not certify closeness.
Auditors and surrogate share the bias of short training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.model.losses import Loss, correct_predictions, log_probabilities


@dataclass(frozen=True)
class AcceptanceLimits:
    """Between what the statistics must lie. Source: the project's method, section 10.

    Attributes:
        disagreement: The largest q.
        left: The largest q0.
        least_rank: The least A.
        greatest_rank: The largest A.
        accuracy_drop: By how much accuracy on V may fall at most, absolute.
        neighbours: Held-out samples that each removed one is compared with.
    """

    disagreement: float = 1.4
    left: float = 0.85
    least_rank: float = 0.2
    greatest_rank: float = 0.8
    accuracy_drop: float = 0.015
    neighbours: int = 30

    def __post_init__(self) -> None:
        numbers = (self.disagreement, self.left, self.least_rank, self.greatest_rank, self.accuracy_drop)
        if not all(math.isfinite(one) and one >= 0 for one in numbers) or self.neighbours < 1:
            raise ConfigurationError(
                f"{self}: limits must be finite and not negative, and there must be a neighbour.",
                remedy="Leave them out for the defaults.",
            )


@dataclass(frozen=True)
class OnBoth:
    """One model's raw outputs, or the labels, on the removed samples (m, ...) and on the held-out ones (k, ...)."""

    removed: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class AcceptanceStatistics:
    """What the decision is made from.

    Attributes:
        disagreement: q of the updated model.
        original_disagreement: q of the original model.
        left: q0.
        rank: A.
        rank_over_classes: A over all classes; reported, not ruled on.
        accuracy_drop: Accuracy on V of the original model, less the updated model's.
    """

    disagreement: float
    original_disagreement: float
    left: float
    rank: float
    rank_over_classes: float
    accuracy_drop: float


class AcceptanceRule(StrEnum):
    """The rules, each of which can refuse."""

    DISAGREES = "disagrees_more_than_one_who_never_saw"
    NOT_FORGOTTEN = "nothing_was_forgotten"
    RANK = "surer_or_less_sure_than_of_samples_like_it"
    ACCURACY_FELL = "accuracy_fell"


@dataclass(frozen=True)
class Acceptance:
    """The decision.

    Attributes:
        broken: The rules that refuse; empty where the removal is accepted.
        nothing_to_forget: The original model itself disagrees with the judge no more than one who never saw the
            removed samples: there was nothing to forget, and the rule that something must have been is not applied.
    """

    broken: tuple[AcceptanceRule, ...]
    nothing_to_forget: bool

    @property
    def accepted(self) -> bool:
        return not self.broken


def acceptance_statistics(
    loss: Loss,
    *,
    updated: OnBoth,
    original: OnBoth,
    judge: OnBoth,
    witness: OnBoth,
    labels: OnBoth,
    neighbours: int = AcceptanceLimits.neighbours,
) -> AcceptanceStatistics:
    """The statistics, in float64.

    Args:
        loss: Cross-entropy or binary cross-entropy: A needs predictions that are right or wrong.
        updated: f, raw outputs of the updated model.
        original: f0, of the model as it was trained.
        judge: Calibrated outputs of the first auditor.
        witness: Calibrated outputs of the second.
        labels: The true labels.
        neighbours: Held-out samples that each removed one is compared with; all where there are fewer.

    Raises:
        ConfigurationError: The loss has no predictive distribution, or a set is empty.
        NonFiniteInput: Outputs are not finite.
    """
    _check(loss, updated, original, judge, witness, labels)
    p, f, f0, a = (_distributions(loss, outputs) for outputs in (judge, updated, original, witness))
    witnessed = _ratio(_divergence(p.removed, a.removed), _divergence(p.held_out, a.held_out))
    own, before = _divergence(p.removed, f.removed), _divergence(p.removed, f0.removed)
    every_p, every_f = (torch.cat(_every_margin(one.held_out)) for one in (p, f))
    judged, margins = _margins(loss, p, labels), _margins(loss, f, labels)
    return AcceptanceStatistics(
        disagreement=_ratio(_ratio(own, _divergence(p.held_out, f.held_out)), witnessed),
        original_disagreement=_ratio(_ratio(before, _divergence(p.held_out, f0.held_out)), witnessed),
        left=_ratio(own, before),
        rank=margin_rank(judged, margins, neighbours),
        rank_over_classes=margin_rank(OnBoth(judged.removed, every_p), OnBoth(margins.removed, every_f), neighbours),
        accuracy_drop=_accuracy(loss, original, labels) - _accuracy(loss, updated, labels),
    )


def accept(statistics: AcceptanceStatistics, limits: AcceptanceLimits | None = None) -> Acceptance:
    """Apply the rules; a statistic that is NaN breaks its rule."""
    limits = limits or AcceptanceLimits()
    nothing = statistics.original_disagreement <= limits.disagreement
    holds = {
        AcceptanceRule.DISAGREES: statistics.disagreement <= limits.disagreement,
        AcceptanceRule.NOT_FORGOTTEN: nothing or statistics.left <= limits.left,
        AcceptanceRule.RANK: limits.least_rank <= statistics.rank <= limits.greatest_rank,
        AcceptanceRule.ACCURACY_FELL: statistics.accuracy_drop <= limits.accuracy_drop,
    }
    return Acceptance(tuple(rule for rule, held in holds.items() if not held), nothing)


def margin_rank(judged: OnBoth, updated: OnBoth, neighbours: int) -> float:
    """A: how a removed sample's margin ranks among those of held-out samples that are as hard.

    Args:
        judged: Margins (m,) and (k,) under the judge, by which the nearest held-out samples are found.
        updated: Margins (m,) and (k,) under the updated model, which are compared; equal ones count half.
        neighbours: How many held-out samples each is compared with; all where there are fewer.
    """
    order = judged.held_out.argsort(stable=True)
    near, others = judged.held_out[order], updated.held_out[order]
    # The nearest lie within as many places of where the margin would stand.
    width = min(len(order), 2 * neighbours)
    start = (torch.searchsorted(near, judged.removed.contiguous()) - neighbours).clamp(0, len(order) - width)
    window = start[:, None] + torch.arange(width, device=order.device)
    distances = (near[window] - judged.removed[:, None]).abs()
    found = others[window.gather(1, distances.argsort(dim=1, stable=True)[:, :neighbours])]
    own = updated.removed[:, None]
    return float(((found < own).double() + (found == own).double() / 2).mean())


def _check(loss: Loss, *given: OnBoth) -> None:
    if loss not in (Loss.CROSS_ENTROPY, Loss.BCE_WITH_LOGITS):
        raise ConfigurationError(
            f"The loss {loss.value!r} has no predictive distribution to accept a removal by.",
            remedy="Compare with a retrained model.",
        )
    for outputs in given:
        sizes = (len(outputs.removed), len(outputs.held_out))
        if 0 in sizes or sizes != (len(given[0].removed), len(given[0].held_out)):
            raise ConfigurationError(
                f"{sizes[0]} removed and {sizes[1]} held-out samples; all models must have seen the same, and of each "
                "at least one.",
                remedy="Pass outputs and labels of the same samples, in the same order.",
            )
        if not all(bool(torch.isfinite(one).all()) for one in (outputs.removed, outputs.held_out)):
            raise NonFiniteInput("Outputs are NaN or infinite.", remedy="Check the models' weights and the inputs.")


def _distributions(loss: Loss, outputs: OnBoth) -> OnBoth:
    """Log-probabilities (b, C, ...) in float64."""
    removed, held_out = (log_probabilities(loss, one.to(torch.float64)) for one in (outputs.removed, outputs.held_out))
    if removed is None or held_out is None:
        raise ConfigurationError(f"The loss {loss.value!r} has no predictive distribution.")
    return OnBoth(removed, held_out)


def _divergence(p: Tensor, q: Tensor) -> float:
    """Mean KL(p || q) over samples and positions, of log-probabilities (b, C, ...)."""
    # A probability that underflows to 0 contributes nothing, whatever its logarithm.
    return float((p.exp() * (p - q)).nan_to_num(0.0).sum(1).mean())


def _ratio(above: float, below: float) -> float:
    """above / below; 1 for 0 / 0 (no difference on either side), infinite where only `below` is 0."""
    if below > 0:
        return above / below
    return math.inf if above > 0 else 1.0


def _margins(loss: Loss, p: OnBoth, labels: OnBoth) -> OnBoth:
    """log p of the label, less the largest log p of another class: (b,), mean over positions."""

    def of(distribution: Tensor, given: Tensor) -> Tensor:
        classes = given > 0.5 if loss is Loss.BCE_WITH_LOGITS else given
        return _margins_of(distribution, classes.to(torch.int64).reshape(len(distribution), 1, *distribution.shape[2:]))

    return OnBoth(of(p.removed, labels.removed), of(p.held_out, labels.held_out))


def _every_margin(distribution: Tensor) -> list[Tensor]:
    """For each class, every sample's margin (b,) as if it were the label."""
    like = distribution.new_zeros(len(distribution), 1, *distribution.shape[2:], dtype=torch.int64)
    return [_margins_of(distribution, like + number) for number in range(distribution.shape[1])]


def _margins_of(distribution: Tensor, chosen: Tensor) -> Tensor:
    """(b,), mean over positions, from log-probabilities (b, C, ...) and classes (b, 1, ...)."""
    margins = distribution.gather(1, chosen) - distribution.scatter(1, chosen, -math.inf).amax(1, keepdim=True)
    return margins.flatten(1).mean(1)


def _accuracy(loss: Loss, outputs: OnBoth, labels: OnBoth) -> float:
    """On the held-out samples."""
    right = correct_predictions(loss, outputs.held_out, labels.held_out)
    return math.nan if right is None else float(right.mean())
