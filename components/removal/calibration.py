"""Affine maps from one model's outputs to another's.

Axes: N rows (samples, or samples times positions), C classes, J outputs with a map of their own each, p parameters.

By moments, each column gets the mean and the standard deviation of the other model's. By divergence, the parameters
(b, c) of a map minimise

    mean over rows of KL(reference || b s + c) + SHIFT_PENALTY * |c|^2,

which is convex in them and has no more than C + 1 of them: damped Newton steps with the exact Hessian, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from oubli.components.errors import NonFiniteInput

SHIFT_PENALTY = 1e-3
"""On the squared shift: it decides what the rows leave open, and holds back the shift of a class that few rows show."""

NEWTON_STEPS = 100
HALVINGS = 40
SUFFICIENT = 1e-4
"""Share of the fall that the gradient promises which a step must bring (Armijo)."""

CONVERGED = 1e-20
"""Half the squared Newton decrement, the fall still to be had, at which a map counts as found."""

SINGULAR = 1e-12
"""Added to the Hessian's diagonal: a model whose outputs are 0 on every row leaves b open."""


@dataclass(frozen=True)
class Affine:
    """outputs -> scale * outputs + shift; both broadcast over the first axis, the samples."""

    scale: Tensor
    shift: Tensor

    def __call__(self, outputs: Tensor) -> Tensor:
        """(b, ...) in float64."""
        return self.scale * outputs.to(self.scale) + self.shift


def by_moments(source: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift, (J,) each, that give the columns of `source` (N, J) `reference`'s means and standard deviations.

    A column of `source` that is constant gets the scale 0: it says nothing.
    """
    spread = source.std(0, correction=0)
    scale = torch.where(spread > 0, reference.std(0, correction=0) / spread, 0.0)
    return scale, reference.mean(0) - scale * source.mean(0)


class Problem(Protocol):
    """J convex problems of p parameters each."""

    @property
    def start(self) -> Tensor:
        """(J, p): the identity map."""
        ...

    def value(self, parameters: Tensor) -> Tensor:
        """(J,) at parameters (J, p)."""
        ...

    def derivatives(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (J, p) and Hessians (J, p, p)."""
        ...


def by_divergence(problem: Problem) -> Tensor:
    """The minimisers (J, p), by Newton steps with halving.

    Raises:
        NonFiniteInput: The outputs are not finite.
    """
    x = problem.start
    value = problem.value(x)
    if not bool(torch.isfinite(value).all()):
        raise NonFiniteInput(
            "Outputs on the held-out samples are NaN or infinite.", remedy="Check both models' weights and the inputs."
        )
    for _ in range(NEWTON_STEPS):
        gradient, hessian = problem.derivatives(x)
        step = -torch.linalg.solve(hessian + SINGULAR * torch.eye(x.shape[1], dtype=x.dtype), gradient)
        slope = (gradient * step).sum(1)
        if bool((-0.5 * slope <= CONVERGED * (1 + value.abs())).all()):
            last: Tensor = x + step
            return last
        x, value, moved = _halved(problem, x, value, step, slope)
        if not moved:
            return x  # what is left of the fall is below rounding
    # Where few samples are separated, the divergence falls for ever as the scale grows: what was reached is as good.
    return x


def _halved(problem: Problem, x: Tensor, value: Tensor, step: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Each problem's parameters and value after the longest of its halved steps that lowers its value enough."""
    length = torch.ones_like(value)
    for _ in range(HALVINGS):
        tried = x + length[:, None] * step
        reached = problem.value(tried)
        enough = reached <= value + SUFFICIENT * length * slope
        if bool(enough.all()):
            return tried, reached, True
        length = torch.where(enough, length, length / 2)
    kept = torch.where(enough[:, None], tried, x)
    return kept, torch.where(enough, reached, value), bool(enough.any())


@dataclass(frozen=True)
class SoftmaxProblem:
    """One map b s + c with b a number and c (C,), between rows of centred logits; p = 1 + C.

    source: (N, C) s; reference: (N, C) the other model's logits.
    """

    source: Tensor
    reference: Tensor

    @property
    def start(self) -> Tensor:
        start = self.source.new_zeros(1, 1 + self.source.shape[1])
        start[0, 0] = 1.0
        return start

    def value(self, parameters: Tensor) -> Tensor:
        q = functional.log_softmax(parameters[0, 0] * self.source + parameters[0, 1:], 1)
        p = functional.log_softmax(self.reference, 1)
        return (p.exp() * (p - q)).sum(1).mean()[None] + SHIFT_PENALTY * parameters[:, 1:].square().sum(1)

    def derivatives(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        s, n = self.source, len(self.source)
        q = functional.softmax(parameters[0, 0] * s + parameters[0, 1:], 1)
        excess = q - functional.softmax(self.reference, 1)
        shift = excess.mean(0) + 2 * SHIFT_PENALTY * parameters[0, 1:]
        gradient = torch.cat([(excess * s).sum(1).mean()[None], shift])
        # Of one row: the covariance of (s, onehot) under q.
        mean = (q * s).sum(1, keepdim=True)
        both = (q * (s - mean)).mean(0)
        hessian = s.new_empty(1 + s.shape[1], 1 + s.shape[1])
        hessian[0, 0] = (q * (s - mean).square()).sum(1).mean()
        hessian[0, 1:] = hessian[1:, 0] = both
        hessian[1:, 1:] = torch.diag(q.mean(0) + 2 * SHIFT_PENALTY) - q.T @ q / n
        return gradient[None], hessian[None]


@dataclass(frozen=True)
class BernoulliProblem:
    """A map b s + c with two numbers for each of J logits; p = 2. source, reference: (N, J)."""

    source: Tensor
    reference: Tensor

    @property
    def start(self) -> Tensor:
        return _identities(self.source)

    def value(self, parameters: Tensor) -> Tensor:
        z, y = parameters[:, 0] * self.source + parameters[:, 1], self.reference
        on = y.sigmoid() * (functional.logsigmoid(y) - functional.logsigmoid(z))
        off = (-y).sigmoid() * (functional.logsigmoid(-y) - functional.logsigmoid(-z))
        return (on + off).mean(0) + SHIFT_PENALTY * parameters[:, 1].square()

    def derivatives(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        q = (parameters[:, 0] * self.source + parameters[:, 1]).sigmoid()
        return _pairs(self.source, q - self.reference.sigmoid(), q * (1 - q), parameters)


@dataclass(frozen=True)
class NormalProblem:
    """A map b s + c with two numbers for each of J means of unit variance; p = 2. source, reference: (N, J)."""

    source: Tensor
    reference: Tensor

    @property
    def start(self) -> Tensor:
        return _identities(self.source)

    def value(self, parameters: Tensor) -> Tensor:
        excess = parameters[:, 0] * self.source + parameters[:, 1] - self.reference
        return 0.5 * excess.square().mean(0) + SHIFT_PENALTY * parameters[:, 1].square()

    def derivatives(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        excess = parameters[:, 0] * self.source + parameters[:, 1] - self.reference
        return _pairs(self.source, excess, torch.ones_like(excess), parameters)


def _identities(source: Tensor) -> Tensor:
    """(J, 2): b = 1, c = 0 for each column."""
    return source.new_tensor([1.0, 0.0]).repeat(source.shape[1], 1)


def _pairs(source: Tensor, excess: Tensor, weight: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (J, 2) and Hessians (J, 2, 2) in (b, c) from first and second derivatives (N, J) in b s + c."""
    shift = excess.mean(0) + 2 * SHIFT_PENALTY * parameters[:, 1]
    gradient = torch.stack([(excess * source).mean(0), shift], 1)
    square, cross = (weight * source.square()).mean(0), (weight * source).mean(0)
    rows = [torch.stack([square, cross], 1), torch.stack([cross, weight.mean(0) + 2 * SHIFT_PENALTY], 1)]
    return gradient, torch.stack(rows, 1)
