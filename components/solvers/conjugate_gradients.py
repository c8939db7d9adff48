"""Solving by conjugate gradients, on products alone.

Axes: d_P parameters of the block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from oubli.components.errors import NumericalError
from oubli.components.solvers.precision import full_precision
from oubli.components.solvers.solution import Product, Solution, SolverName, checked, indefinite, not_finite

CG_ITERATIONS = 1000


@dataclass(frozen=True)
class ProductSystem:
    """A as a product v -> A v.

    Attributes:
        matvec: v (d_P,) -> A v (d_P,).
        diagonal: Gives trace(A) / d_P; called once at most.
    """

    matvec: Product
    diagonal: Callable[[], float]

    @cached_property
    def _mean_diagonal(self) -> float:
        return self.diagonal()

    def mean_diagonal(self) -> float:
        """trace(A) / d_P."""
        return self._mean_diagonal

    @full_precision()
    def solve(self, b: Tensor, shift: float) -> Solution:
        """x with (A + shift * I) x = b, by conjugate gradients (Hestenes, Stiefel 1952) from zero.

        Stops at a relative residual of eps^(5/8), 2e-10 in float64 and 5e-5 in float32, which rounding still lets an
        ill-conditioned system reach.

        Args:
            b: (d_P,).
            shift: What is added to the diagonal.

        Raises:
            IndefiniteCurvature: An iteration met negative curvature.
            NumericalError: More than CG_ITERATIONS are needed, or the residual stays above the tolerance.
            NonFiniteInput: A product is not finite.
        """
        tolerance = torch.finfo(b.dtype).eps ** 0.625
        x = torch.zeros_like(b)
        residual = b.clone()
        direction = b.clone()
        goal = tolerance * float(b.norm())
        squared = float(residual.dot(residual))
        for iteration in range(CG_ITERATIONS + 1):
            if squared**0.5 <= goal:
                # The residual carried along drifts from the true one.
                return checked(x, SolverName.CONJUGATE_GRADIENTS, iteration, self._shifted(x, shift), b, shift)
            product = self._shifted(direction, shift)
            curvature = float(direction.dot(product))
            if not math.isfinite(curvature):
                raise not_finite()
            if curvature <= 0:
                along = curvature / float(direction.dot(direction)) - shift
                raise indefinite(along, f"curvature met in iteration {iteration + 1}", shift)
            length = squared / curvature
            x += length * direction
            residual -= length * product
            previous, squared = squared, float(residual.dot(residual))
            direction = residual + (squared / previous) * direction
        raise NumericalError(
            f"Conjugate gradients reached a relative residual of {squared**0.5 / float(b.norm()):.2g} in "
            f"{CG_ITERATIONS} iterations; {tolerance:.2g} is needed, with l2 and damping adding {shift:.3g}.",
            remedy="Raise the damping, restrict the block, or compute in float64.",
        )

    def _shifted(self, x: Tensor, shift: float) -> Tensor:
        return self.matvec(x) + shift * x
