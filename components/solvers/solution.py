"""What a solved system says of itself, and when its solution counts.

Axes: d_P parameters of the block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from oubli.components.errors import IndefiniteCurvature, NonFiniteInput, NumericalError

Product = Callable[[Tensor], Tensor]


class SolverName(StrEnum):
    """How a system was solved."""

    CHOLESKY = "cholesky"
    WOODBURY = "woodbury"
    CONJUGATE_GRADIENTS = "conjugate_gradients"
    EIGENDECOMPOSITION = "eigendecomposition"


@dataclass(frozen=True)
class Solution:
    """The solution of a system (A + shift I) x = b.

    Attributes:
        x: (d_P,).
        solver: How it was found.
        iterations: Of conjugate gradients, or solves of a direct way.
        residual: ||(A + shift I) x - b|| / ||b||.
    """

    x: Tensor
    solver: SolverName
    iterations: int
    residual: float


class System(Protocol):
    """A curvature in the form that it will be solved in. What serves several shifts is computed once and kept."""

    def mean_diagonal(self) -> float:
        """trace(A) / d_P."""
        ...

    def solve(self, b: Tensor, shift: float) -> Solution:
        """x with (A + shift * I) x = b.

        Args:
            b: (d_P,).
            shift: What is added to the diagonal.

        Raises:
            IndefiniteCurvature: A + shift * I is not positive definite.
            NumericalError: The residual stays above `tolerance_of` the dtype.
        """
        ...


def tolerance_of(dtype: torch.dtype) -> float:
    """The relative residual that a solution may have: 4 sqrt(eps), 6e-8 in float64 and 1.4e-3 in float32.

    Half the digits. Rounding leaves about eps times the condition number, 1e-4 for a small network in float32. What
    stays of the gradient for want of a thousandth of b is far less than what the linearisation leaves; with much
    more, the step's small directions are rounding and not curvature.
    """
    return 4 * float(torch.finfo(dtype).eps ** 0.5)


def checked(x: Tensor, solver: SolverName, iterations: int, product: Tensor, b: Tensor, shift: float) -> Solution:
    """The solution of a system, unless its residual is above the tolerance.

    Args:
        x: (d_P,).
        solver: How it was found.
        iterations: How many it took.
        product: (A + shift I) x, computed anew.
        b: (d_P,), what the product should be.
        shift: What was added to the diagonal, for the message.

    Raises:
        NumericalError: The residual is above `tolerance_of` the dtype, or NaN.
    """
    scale = float(b.norm())
    residual = float((product - b).norm()) / scale if scale > 0 else float(product.norm())
    tolerance = tolerance_of(b.dtype)
    # Written so that NaN does not pass.
    if not residual <= tolerance:
        raise NumericalError(
            f"{solver} left a relative residual of {residual:.2g}; {tolerance:.2g} is needed, "
            f"with l2 and damping adding {shift:.3g}.",
            remedy="Raise the damping, or compute in float64.",
        )
    return Solution(x, solver, iterations, residual)


def check_finite(matrix: Tensor) -> None:
    """NonFiniteInput where an element is NaN or infinite."""
    if not bool(torch.isfinite(matrix).all()):
        raise not_finite()


def not_finite() -> NonFiniteInput:
    """The error of a curvature that is not finite."""
    return NonFiniteInput(
        "The curvature is NaN or infinite.",
        remedy="Check the retained samples for missing or huge values, retrain, or compute in float64.",
    )


def indefinite(curvature: float, what: str, shift: float) -> IndefiniteCurvature:
    """The error of a damped curvature that is not positive definite.

    Args:
        curvature: The lowest that was met, without the shift.
        what: What that number is.
        shift: What was added to the diagonal.
    """
    return IndefiniteCurvature(
        f"The curvature is not positive definite: {what} {curvature:.3g}, with l2 and damping adding {shift:.3g}.",
        remedy=f"Use a damping that brings the sum above {abs(curvature):.3g}, or retrain.",
    )
