"""What a removal from a network is judged by: the updated model beside models that never saw the removed samples.

Axes: m removed samples U, k held-out samples V (never in training), C classes, T further positions.

The *judge* p never saw U: a model that was retrained without it, where there is one, else an auditor, trained briefly
on the retained samples alone, from a fresh initialisation and another seed than the surrogate's, and calibrated to the
original model on V by divergence (`removal.targets.calibrate`). A second auditor a, the *witness*, shows how one who
never saw U stands beside the judge. With f the updated model and f0 the original:

    q    = [KL_U(p || f) / KL_V(p || f)] / [KL_U(p || a) / KL_V(p || a)]
    q0   = KL_U(p || f) / KL_U(p || f0)
    A    = mean over u in U of the share of u's NEIGHBOURS held-out samples, those with the nearest margin under the
           judge, whose margin under f is below u's

q near 1: f disagrees with the judge on U no more than on held-out samples, as one who never saw U does. A near 1/2: f
is no surer of U than of held-out samples like it. Both are noisy of few samples, and blunt where V has none like them;
beside them stand

    excess divergence   the mean over u of KL(p || f) less its mean over the NEIGHBOURS held-out samples of which the
                        judge is as certain, in standard deviations of the same figure on V (at least NEGLIGIBLE)
    excess as labelled  the share of U that f predicts as labelled, less the auditors' own, less the same difference on
                        V, by which a longer training is better than a brief one

both 0 where f never saw U, with standard errors of 1 / sqrt(m) and std_V / sqrt(m). A takes for granted that labels on
U come about as those on V do. Under labels that were drawn at random a retrained model's margins lie below those of
nearly all held-out samples, which no model finds so unlikely: A is then near 0 for every model that forgot, so it says
only what is still remembered. A *over all classes*, whose neighbours are pairs of a held-out sample and any class, is
near 1/2 there, and shows what was pushed away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.gate.ranks import NEIGHBOURS, OnBoth, margin_rank, nearest
from oubli.components.measures.paired import Paired, paired
from oubli.components.model.losses import (
    Loss,
    correct_predictions,
    log_probabilities,
    loss_function,
)
from oubli.components.removal.output_families import OutputFamily, output_family

NEGLIGIBLE = 0.02
"""In nats. Where a judge says all but the same of held-out samples as the original, as a retraining of the same seed
may, what is measured in units of that would make much of nothing."""

QUANTILES = (0.1, 0.5, 0.9)
"""Of the samples' divergences, as evidence."""


@dataclass(frozen=True)
class Standing:
    """One model beside the judge; None where the loss has no right and wrong predictions.

    Attributes:
        divergence_removed: Mean KL(p || model) on U, in nats.
        divergence_held_out: The same on V.
        quantiles_removed: QUANTILES of the samples' divergences on U.
        quantiles_held_out: The same on V.
        excess_divergence: See the module's text.
        rank: A.
        rank_over_classes: A over all classes.
        as_labelled: Share of U that the model predicts as labelled.
        accuracy: The same share of V.
        loss_removed: Mean loss on U.
        loss_held_out: Mean loss on V.
    """

    divergence_removed: float
    divergence_held_out: float
    quantiles_removed: tuple[float, ...]
    quantiles_held_out: tuple[float, ...]
    excess_divergence: float
    rank: float
    rank_over_classes: float | None
    as_labelled: float | None
    accuracy: float | None
    loss_removed: float
    loss_held_out: float


@dataclass(frozen=True)
class AcceptanceStatistics:
    """What the decision is made from.

    Attributes:
        removed: m.
        held_out: k.
        updated: f beside the judge.
        original: f0 beside the judge.
        judge: The judge beside itself.
        witness: a beside the judge; None where the judge was retrained, and needs none.
        as_labelled_spread: std_V of whether f is right less how right the auditors are; None without predictions.
        accuracy: Of f0, or of the judge where it was retrained, and of f: on the samples of V that count, one by one;
            None without predictions, or where none counts.
    """

    removed: int
    held_out: int
    updated: Standing
    original: Standing
    judge: Standing
    witness: Standing | None
    as_labelled_spread: float | None
    accuracy: Paired | None

    @property
    def disagreement(self) -> float | None:
        """q; None without a witness."""
        return self._disagreement(self.updated)

    @property
    def original_disagreement(self) -> float | None:
        """q of the original model; None without a witness."""
        return self._disagreement(self.original)

    @property
    def left(self) -> float:
        """q0."""
        return _ratio(self.updated.divergence_removed, self.original.divergence_removed)

    @property
    def drift(self) -> float:
        """KL_V(p || f) / KL_V(p || f0): how much further from the judge the update moved where nothing was removed.

        Below NEGLIGIBLE, in units of that.
        """
        return self.updated.divergence_held_out / max(self.original.divergence_held_out, NEGLIGIBLE)

    @property
    def chance(self) -> float:
        """1 / sqrt(m), the standard error of a mean over U in standard deviations of its samples."""
        return 1 / math.sqrt(self.removed)

    def excess_as_labelled(self, model: Standing) -> float | None:
        """See the module's text; None without predictions."""
        auditors = [one for one in (self.judge, self.witness) if one is not None]
        removed = _mean_of(one.as_labelled for one in auditors)
        held_out = _mean_of(one.accuracy for one in auditors)
        if model.as_labelled is None or model.accuracy is None or removed is None or held_out is None:
            return None
        return (model.as_labelled - removed) - (model.accuracy - held_out)

    def _disagreement(self, model: Standing) -> float | None:
        if self.witness is None:
            return None
        witnessed = _ratio(self.witness.divergence_removed, self.witness.divergence_held_out)
        return _ratio(_ratio(model.divergence_removed, model.divergence_held_out), witnessed)


def acceptance_statistics(
    loss: Loss,
    *,
    updated: OnBoth,
    original: OnBoth,
    judge: OnBoth,
    witness: OnBoth | None,
    labels: OnBoth,
    counted: Tensor | None = None,
) -> AcceptanceStatistics:
    """The statistics, in float64.

    Args:
        loss: Of the models.
        updated: f, raw outputs of the updated model.
        original: f0, of the model before the update.
        judge: Outputs of the retrained model, or calibrated ones of the first auditor.
        witness: Calibrated outputs of the second auditor; None beside a retrained model.
        labels: The true labels.
        counted: (k,) bool, the held-out samples that accuracy is compared on; None for all.

    Raises:
        ConfigurationError: A set is empty, or the models did not see the same samples.
        NonFiniteInput: Outputs are not finite.
    """
    _check(updated, original, judge, witness or judge, labels)
    bench = _Bench(loss, output_family(loss_function(loss), original.held_out), _double(judge), labels)
    first, before = bench.right(updated), bench.right(original if witness is not None else judge)
    auditors = [bench.right(one) for one in (judge, witness) if one is not None]
    spread = None
    if first is not None:
        mean = torch.stack([one.held_out for one in auditors if one is not None]).mean(0)
        spread = float((first.held_out - mean).std(correction=0))
    return AcceptanceStatistics(
        removed=len(labels.removed),
        held_out=len(labels.held_out),
        updated=bench.standing(updated),
        original=bench.standing(original),
        judge=bench.standing(judge),
        witness=None if witness is None else bench.standing(witness),
        as_labelled_spread=spread,
        accuracy=_accuracy(before, first, counted),
    )


@dataclass(frozen=True)
class _Bench:
    """What every model is held against: the judge's outputs in float64, and the labels."""

    loss: Loss
    family: OutputFamily
    judge: OnBoth
    labels: OnBoth

    def standing(self, outputs: OnBoth) -> Standing:
        model = _double(outputs)
        apart, losses, right = self._apart(model), self._losses(model), self.right(model)
        margins, judged = self._margins(model), self._margins(self.judge)
        pairs = self._every_margin(model.held_out), self._every_margin(self.judge.held_out)
        over_classes = None
        if pairs[0] is not None and pairs[1] is not None:
            over_classes = margin_rank(OnBoth(judged.removed, pairs[1]), OnBoth(margins.removed, pairs[0]))
        return Standing(
            divergence_removed=float(apart.removed.mean()),
            divergence_held_out=float(apart.held_out.mean()),
            quantiles_removed=_quantiles(apart.removed),
            quantiles_held_out=_quantiles(apart.held_out),
            excess_divergence=self._excess(apart),
            rank=margin_rank(judged, margins),
            rank_over_classes=over_classes,
            as_labelled=None if right is None else float(right.removed.mean()),
            accuracy=None if right is None else float(right.held_out.mean()),
            loss_removed=float(losses.removed.mean()),
            loss_held_out=float(losses.held_out.mean()),
        )

    def right(self, outputs: OnBoth) -> OnBoth | None:
        """How right each prediction is."""
        removed = correct_predictions(self.loss, outputs.removed, self.labels.removed)
        held_out = correct_predictions(self.loss, outputs.held_out, self.labels.held_out)
        return None if removed is None or held_out is None else OnBoth(removed, held_out)

    def _apart(self, model: OnBoth) -> OnBoth:
        """KL(p || model) of each sample."""
        removed = self.family.divergence(self.judge.removed, model.removed)
        return OnBoth(removed, self.family.divergence(self.judge.held_out, model.held_out))

    def _excess(self, apart: OnBoth) -> float:
        """How far the mean on U lies above that on held-out samples of equal certainty, in their spread."""
        certainty = [self._certainty(one) for one in (self.judge.removed, self.judge.held_out)]
        if certainty[0] is None or certainty[1] is None:
            own, others = apart.removed - apart.held_out.mean(), apart.held_out - apart.held_out.mean()
        else:
            own, others = (
                each - apart.held_out[nearest(one, certainty[1], NEIGHBOURS)].mean(1)
                for one, each in zip(certainty, (apart.removed, apart.held_out), strict=True)
                if one is not None
            )
        return float(own.mean()) / max(float(others.std(correction=0)), NEGLIGIBLE)

    def _losses(self, model: OnBoth) -> OnBoth:
        function = loss_function(self.loss)
        return OnBoth(function(model.removed, self.labels.removed), function(model.held_out, self.labels.held_out))

    def _margins(self, model: OnBoth) -> OnBoth:
        """log p of the label, less the largest log p of another class; minus the loss where there are no classes."""
        if log_probabilities(self.loss, model.removed) is None:
            losses = self._losses(model)
            return OnBoth(-losses.removed, -losses.held_out)
        return OnBoth(
            self._margin(model.removed, self.labels.removed), self._margin(model.held_out, self.labels.held_out)
        )

    def _margin(self, outputs: Tensor, labels: Tensor) -> Tensor:
        distribution = log_probabilities(self.loss, outputs)
        if distribution is None:
            raise ConfigurationError(f"The loss {self.loss.value!r} has no classes.")
        classes = labels > 0.5 if self.loss is Loss.BCE_WITH_LOGITS else labels
        chosen = classes.to(torch.int64).reshape(len(distribution), 1, *distribution.shape[2:])
        return _margins_of(distribution, chosen)

    def _every_margin(self, outputs: Tensor) -> Tensor | None:
        """(k C,): every sample's margin as if each class were its label."""
        distribution = log_probabilities(self.loss, outputs)
        if distribution is None:
            return None
        like = distribution.new_zeros(len(distribution), 1, *distribution.shape[2:], dtype=torch.int64)
        return torch.cat([_margins_of(distribution, like + number) for number in range(distribution.shape[1])])

    def _certainty(self, outputs: Tensor) -> Tensor | None:
        """The margin of the class that the model itself predicts, (b,)."""
        distribution = log_probabilities(self.loss, outputs)
        return None if distribution is None else _margins_of(distribution, distribution.argmax(1, keepdim=True))


def _margins_of(distribution: Tensor, chosen: Tensor) -> Tensor:
    """(b,), mean over positions, from log-probabilities (b, C, ...) and classes (b, 1, ...)."""
    margins = distribution.gather(1, chosen) - distribution.scatter(1, chosen, -math.inf).amax(1, keepdim=True)
    return margins.flatten(1).mean(1)


def _check(*given: OnBoth) -> None:
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


def _accuracy(before: OnBoth | None, after: OnBoth | None, counted: Tensor | None) -> Paired | None:
    """On the held-out samples that count."""
    if before is None or after is None:
        return None
    chosen = torch.ones(len(after.held_out), dtype=torch.bool) if counted is None else counted
    return paired(before.held_out[chosen], after.held_out[chosen]) if bool(chosen.any()) else None


def _double(outputs: OnBoth) -> OnBoth:
    return OnBoth(outputs.removed.to(torch.float64), outputs.held_out.to(torch.float64))


def _quantiles(values: Tensor) -> tuple[float, ...]:
    return tuple(torch.quantile(values, torch.tensor(QUANTILES, dtype=values.dtype)).tolist())


def _ratio(above: float, below: float) -> float:
    """above / below; 1 for 0 / 0 (no difference on either side), infinite where only `below` is 0."""
    if below > 0:
        return above / below
    return math.inf if above > 0 else 1.0


def _mean_of(values: Iterable[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return sum(given) / len(given) if given else None
