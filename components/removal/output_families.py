"""What outputs mean under a loss: how far two predictions are apart, and how one model's are calibrated to another's.

Axes: b or k samples, C classes, J outputs, T further positions (pixels, tokens).

- Cross-entropy: softmax over axis 1 of logits (b, C, T...), centred over the classes, since a constant added to all
  logits of a sample says nothing.
- Binary cross-entropy: each logit is a distribution of its own.
- Squared errors: each output is the mean of a normal distribution, whose standard deviation is the original model's
  own spread of that output, so that nothing depends on units.

A divergence of several outputs or positions is their mean, as the losses are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from oubli.components.errors import ConfigurationError
from oubli.components.model.losses import Loss, LossFunction, loss_kind
from oubli.components.removal.calibration import (
    Affine,
    BernoulliProblem,
    NormalProblem,
    SoftmaxProblem,
    by_divergence,
    by_moments,
)

SQUARE_WEIGHT = 0.5
"""Of the mean squared difference of logits beside their divergence, which alone hardly moves what is saturated."""


class OutputFamily(Protocol):
    """Outputs under one loss."""

    def centred(self, outputs: Tensor) -> Tensor:
        """The outputs without what says nothing."""
        ...

    def divergence(self, teacher: Tensor, outputs: Tensor) -> Tensor:
        """KL(teacher || outputs) in nats, (b,), mean over positions or outputs; differentiable in `outputs`."""
        ...

    def distance(self, teacher: Tensor, outputs: Tensor) -> Tensor:
        """What matching minimises, (b,): the divergence, and for logits SQUARE_WEIGHT of their squared difference."""
        ...

    def by_divergence(self, source: Tensor, reference: Tensor) -> Affine:
        """The affine map of `source` (k, ...) nearest `reference` (k, ...) in divergence."""
        ...

    def by_moments(self, source: Tensor, reference: Tensor) -> Affine:
        """The affine map that gives `source` (k, ...) the mean and spread of `reference` (k, ...)."""
        ...


def output_family(loss: LossFunction, reference: Tensor) -> OutputFamily:
    """The family of the loss's outputs.

    Args:
        loss: The loss that the model was trained with.
        reference: (k, ...) outputs of the original model: the spread that squared errors are measured in.

    Raises:
        ConfigurationError: No calibration is known for the loss.
    """
    match loss_kind(loss):
        case Loss.CROSS_ENTROPY:
            return Softmax()
        case Loss.BCE_WITH_LOGITS:
            return Bernoulli()
        case Loss.MSE:
            return Normal.spread_as(reference)
        case _:
            raise ConfigurationError(
                f"Outputs under the loss {getattr(loss, '__name__', loss)!r} have no calibration, so "
                "that what retraining would say cannot be predicted from a surrogate.",
                remedy=f"Train with one of {', '.join(Loss)}, or remove by retraining.",
            )


@dataclass(frozen=True)
class Softmax:
    """Logits (b, C, T...) of exclusive classes."""

    def centred(self, outputs: Tensor) -> Tensor:
        return outputs - outputs.mean(1, keepdim=True)

    def divergence(self, teacher: Tensor, outputs: Tensor) -> Tensor:
        p, q = functional.log_softmax(teacher, 1), functional.log_softmax(outputs, 1)
        return _per_sample((p.exp() * (p - q)).sum(1))

    def distance(self, teacher: Tensor, outputs: Tensor) -> Tensor:
        square = _per_sample((self.centred(teacher) - self.centred(outputs)).square().mean(1))
        return self.divergence(teacher, outputs) + SQUARE_WEIGHT * square

    def by_divergence(self, source: Tensor, reference: Tensor) -> Affine:
        (found,) = by_divergence(SoftmaxProblem(self._rows(source), self._rows(reference)))
        return Affine(found[0], self._shaped(found[1:], source))

    def by_moments(self, source: Tensor, reference: Tensor) -> Affine:
        scale, shift = by_moments(self._rows(source), self._rows(reference))
        return Affine(self._shaped(scale, source), self._shaped(shift, source))

    def _rows(self, outputs: Tensor) -> Tensor:
        """(k * T, C) float64, each position a row."""
        centred = self.centred(outputs.to(torch.float64))
        return centred.movedim(1, -1).reshape(-1, centred.shape[1])

    @staticmethod
    def _shaped(values: Tensor, outputs: Tensor) -> Tensor:
        """(C,) so that it broadcasts along axis 1 of (b, C, T...)."""
        return values.reshape(-1, *[1] * (outputs.ndim - 2))


@dataclass(frozen=True)
class Bernoulli:
    """Logits (b, ...), each of a label of its own."""

    def centred(self, outputs: Tensor) -> Tensor:
        return outputs

    def divergence(self, teacher: Tensor, outputs: Tensor) -> Tensor:
        on = teacher.sigmoid() * (functional.logsigmoid(teacher) - functional.logsigmoid(outputs))
        off = (-teacher).sigmoid() * (functional.logsigmoid(-teacher) - functional.logsigmoid(-outputs))
        return _per_sample(on + off)

    def distance(self, teacher: Tensor, outputs: Tensor) -> Tensor:
        return self.divergence(teacher, outputs) + SQUARE_WEIGHT * _per_sample((teacher - outputs).square())

    def by_divergence(self, source: Tensor, reference: Tensor) -> Affine:
        return _affine(by_divergence(BernoulliProblem(_columns(source), _columns(reference))).T, source)

    def by_moments(self, source: Tensor, reference: Tensor) -> Affine:
        return _affine(by_moments(_columns(source), _columns(reference)), source)


@dataclass(frozen=True)
class Normal:
    """Means (b, ...) of outputs whose standard deviations are `scale` (...) about `centre` (...)."""

    centre: Tensor
    scale: Tensor

    @classmethod
    def spread_as(cls, reference: Tensor) -> Normal:
        """With each output's mean and standard deviation over `reference` (k, ...); 1 where an output is constant."""
        values = reference.to(torch.float64)
        spread = values.std(0, correction=0)
        return cls(values.mean(0), torch.where(spread > 0, spread, 1.0))

    def centred(self, outputs: Tensor) -> Tensor:
        return outputs

    def divergence(self, teacher: Tensor, outputs: Tensor) -> Tensor:
        scale = self.scale.to(outputs.device, outputs.dtype)
        return _per_sample(0.5 * ((teacher - outputs) / scale).square())

    def distance(self, teacher: Tensor, outputs: Tensor) -> Tensor:
        # The divergence is half a squared difference itself.
        return self.divergence(teacher, outputs)

    def by_divergence(self, source: Tensor, reference: Tensor) -> Affine:
        # About the centre and in units of the scale: the shift's penalty then knows neither origin nor unit.
        s, y = (_columns((values.to(self.scale) - self.centre) / self.scale) for values in (source, reference))
        found = _affine(by_divergence(NormalProblem(s, y)).T, source)
        return Affine(found.scale, self.scale * found.shift + (1 - found.scale) * self.centre)

    def by_moments(self, source: Tensor, reference: Tensor) -> Affine:
        return _affine(by_moments(_columns(source), _columns(reference)), source)


def _columns(outputs: Tensor) -> Tensor:
    """(k, J) float64 of outputs (k, ...)."""
    return outputs.to(torch.float64).reshape(len(outputs), -1)


def _affine(columns: Iterable[Tensor], outputs: Tensor) -> Affine:
    """Scale and shift, (J,) each, in the shape of one sample's outputs."""
    scale, shift = columns
    return Affine(scale.reshape(outputs.shape[1:]), shift.reshape(outputs.shape[1:]))


def _per_sample(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.ndim > 1 else values
