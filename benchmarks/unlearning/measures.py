"""How near a model is to retraining, from the outputs that were recorded of it.

Axes: j retrained models, k samples, C classes.

Every divergence is KL(mean retrained prediction || model), in nats. A retrained model is compared with the mean of the
*others*, which gives the floor; every model is then compared with each of these leave-one-out means, and the average
taken, so that floor and figure are of means over as many models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import torch
from torch import Tensor

from oubli.components.measures.membership import membership_auc

PARTS = ("U", "R", "test")


def log_softmax(outputs: Tensor) -> Tensor:
    return torch.log_softmax(outputs.to(torch.float64), 1)


def margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """(k,) log-odds of the label against the best other class."""
    logits = outputs.to(torch.float64)
    own = logits.gather(1, labels[:, None])[:, 0]
    return own - logits.scatter(1, labels[:, None], -math.inf).amax(1)


def divergence(first: Tensor, second: Tensor) -> float:
    """Mean KL(first || second) of log-probabilities (k, C)."""
    # A probability of 0 contributes nothing, whatever its logarithm.
    return float((first.exp() * (first - second)).nan_to_num(0.0).sum(1).mean())


def mean_prediction(predictions: Tensor) -> Tensor:
    """(k, C): the log of the mean of several models' probabilities, from their log-probabilities (j, k, C)."""
    return torch.logsumexp(predictions, 0) - math.log(len(predictions))


def means_of_the_others(predictions: Tensor) -> list[Tensor]:
    """Without each of j models in turn, the mean of the others' predictions, as log-probabilities (k, C)."""
    return [mean_prediction(torch.cat([predictions[:out], predictions[out + 1 :]])) for out in range(len(predictions))]


@dataclass(frozen=True)
class Outputs:
    """One model: logits (k, C) by sample set, and its accuracy on all of R."""

    tables: Mapping[str, Tensor]
    accuracy: float


@dataclass(frozen=True)
class Ruler:
    """The retrained models of one cell, at least 2, and the labels of its sample sets."""

    retrained: Sequence[Outputs]
    labels: Mapping[str, Tensor]

    @cached_property
    def _predictions(self) -> dict[str, Tensor]:
        """(j, k, C) log-probabilities."""
        return {part: torch.stack([log_softmax(one.tables[part]) for one in self.retrained]) for part in PARTS}

    @cached_property
    def _means(self) -> dict[str, list[Tensor]]:
        """Without each retrained model in turn, the mean of the others' predictions, as log-probabilities."""
        return {part: means_of_the_others(predictions) for part, predictions in self._predictions.items()}

    @cached_property
    def floor(self) -> dict[str, float]:
        """By part: a retrained model against the others, averaged."""
        return {
            part: fmean(divergence(mean, own) for mean, own in zip(means, self._predictions[part], strict=True))
            for part, means in self._means.items()
        }

    @cached_property
    def _margins(self) -> Tensor:
        """(j, k) on U."""
        return torch.stack([margins(one.tables["U"], self.labels["U"]) for one in self.retrained])

    @cached_property
    def _spread(self) -> float:
        """Standard deviation of a sample's margin among retrained models, root mean square over U."""
        return float(self._margins.var(0).mean().sqrt())

    def accuracy(self, one: Outputs, part: str) -> float:
        if part == "R":
            return one.accuracy
        return float((one.tables[part].argmax(1) == self.labels[part]).double().mean())

    def membership(self, one: Outputs) -> float:
        """Area under the curve of the loss, removed against test samples; NaN where a loss is."""
        scores = [log_softmax(one.tables[part]).gather(1, self.labels[part][:, None]) for part in ("U", "test")]
        if any(bool(score.isnan().any()) for score in scores):
            return math.nan
        return membership_auc(scores[0], scores[1]).auc

    @cached_property
    def targets(self) -> dict[str, float]:
        """The retrained models' own figures, averaged."""
        found = {f"accuracy_{part}": fmean(self.accuracy(one, part) for one in self.retrained) for part in PARTS}
        found["membership"] = fmean(self.membership(one) for one in self.retrained)
        return found | self._backdoor(self.retrained)

    def _backdoor(self, models: Sequence[Outputs]) -> dict[str, float]:
        if "triggered" not in self.labels:
            return {}
        labels = self.labels["triggered"]
        return {
            "backdoor": fmean(float((one.tables["triggered"].argmax(1) == labels).double().mean()) for one in models)
        }

    def figures(self, model: Outputs, original: Outputs, out: int | None = None) -> dict[str, float]:
        """Of one model; `original` is the one that it was made from.

        Args:
            out: The place of a retrained model that is measured itself, and compared with the others alone.
        """
        found = {}
        for part in PARTS:
            means = self._means[part] if out is None else [self._means[part][out]]
            own = log_softmax(model.tables[part])
            found[f"kl_{part}"] = fmean(divergence(mean, own) for mean in means)
            found[f"accuracy_{part}"] = self.accuracy(model, part)
        found["floors"] = found["kl_U"] / self.floor["U"]
        kept = [place for place in range(len(self.retrained)) if place != out]
        gaps = (margins(model.tables["U"], self.labels["U"]) - self._margins[kept].mean(0)) / self._spread
        found["margin_gap"], found["margin_distance"] = float(gaps.mean()), float(gaps.abs().mean())
        found["membership"] = self.membership(model)
        found["membership_off"] = found["membership"] - self.targets["membership"]
        changed = model.tables["R"].argmax(1) != original.tables["R"].argmax(1)
        found["flips_R"] = float(changed.double().mean())
        return found | self._backdoor([model])


class Quality:
    """What a gate should say of a model: the bars that make one good or grossly bad.

    A divergence alone makes none good: of samples that were hardly memorised, every model's is near the floor.
    """

    GOOD_FLOORS, GOOD_ACCURACY, GOOD_MEMBERSHIP = 1.25, 0.01, 0.1
    BAD_FLOORS, BAD_ACCURACY = 3.0, 0.03

    @classmethod
    def of(cls, figures: Mapping[str, float], targets: Mapping[str, float]) -> str:
        """`good`, `bad` or `grossly bad`; what is not finite is grossly bad."""
        floors, lost = figures["floors"], targets["accuracy_test"] - figures["accuracy_test"]
        if not (floors <= cls.BAD_FLOORS and lost <= cls.BAD_ACCURACY):
            return "grossly bad"
        near = floors <= cls.GOOD_FLOORS and abs(figures["membership_off"]) <= cls.GOOD_MEMBERSHIP
        return "good" if near and lost <= cls.GOOD_ACCURACY else "bad"
