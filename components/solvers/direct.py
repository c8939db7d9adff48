"""Direct solves: of a dense matrix, and of one of low rank.

Axes: d_P parameters of the block, r rows of a factor (A = factor^T factor).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from oubli.components.solvers.precision import full_precision
from oubli.components.solvers.solution import (
    Product,
    Solution,
    SolverName,
    check_finite,
    checked,
    indefinite,
    tolerance_of,
)

REFINEMENTS = 2
"""Steps of iterative refinement at most: what two cannot mend lies in the rounding of the product itself."""


@dataclass(frozen=True)
class DenseSystem:
    """A as a matrix.

    Attributes:
        matrix: (d_P, d_P), symmetric.

    Raises:
        NonFiniteInput: It is not finite.
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        check_finite(self.matrix)

    @cached_property
    def lowest(self) -> float:
        """The smallest eigenvalue, which costs more than a solve: found once, for the message alone."""
        return float(torch.linalg.eigvalsh(self.matrix)[0])

    def mean_diagonal(self) -> float:
        """trace(A) / d_P."""
        return float(self.matrix.diagonal().mean())

    @full_precision()
    def solve(self, b: Tensor, shift: float) -> Solution:
        """x with (A + shift * I) x = b, by Cholesky, refined where the residual asks for it.

        Args:
            b: (d_P,).
            shift: What is added to the diagonal.

        Raises:
            IndefiniteCurvature: A + shift * I is not positive definite.
            NumericalError: The residual stays above the tolerance.
        """
        shifted = self.matrix.clone()
        shifted.diagonal().add_(shift)
        triangle, failed = torch.linalg.cholesky_ex(shifted)
        if int(failed):
            raise indefinite(self.lowest, "smallest eigenvalue", shift)

        def inverse(right: Tensor) -> Tensor:
            return torch.cholesky_solve(right[:, None], triangle)[:, 0]

        x, steps = refined(inverse, lambda at: shifted @ at, b)
        return checked(x, SolverName.CHOLESKY, steps, shifted @ x, b, shift)


@dataclass(frozen=True)
class WoodburySystem:
    """A = factor^T factor with factor (r, d_P), r < d_P.

    (shift I + F^T F)^{-1} = (I - F^T (shift I + F F^T)^{-1} F) / shift. With one row this is the formula of Sherman
    and Morrison.

    Attributes:
        factor: F (r, d_P).

    Raises:
        NonFiniteInput: F is not finite.
    """

    factor: Tensor

    def __post_init__(self) -> None:
        check_finite(self.factor)

    @cached_property
    def gram(self) -> Tensor:
        """F F^T (r, r): 2 r^2 d_P operations, far more than a solve with it, so it serves all shifts."""
        return self.factor @ self.factor.T

    def mean_diagonal(self) -> float:
        """trace(A) / d_P."""
        return float(self.factor.square().sum()) / self.factor.shape[1]

    @full_precision()
    def solve(self, b: Tensor, shift: float) -> Solution:
        """x with (A + shift * I) x = b, through the (r, r) matrix F F^T + shift I.

        Args:
            b: (d_P,).
            shift: What is added to the diagonal; positive, as A itself is singular.

        Raises:
            IndefiniteCurvature: `shift` is not positive, or the inner matrix not positive definite.
            NumericalError: The residual stays above the tolerance.
        """
        if shift <= 0:
            raise indefinite(0.0, "smallest eigenvalue", shift)
        F = self.factor
        inner = self.gram.clone()
        inner.diagonal().add_(shift)
        triangle, failed = torch.linalg.cholesky_ex(inner)
        if int(failed):
            raise indefinite(0.0, "smallest eigenvalue", shift)

        def inverse(right: Tensor) -> Tensor:
            return (right - F.T @ torch.cholesky_solve((F @ right)[:, None], triangle)[:, 0]) / shift

        def product(at: Tensor) -> Tensor:
            return F.T @ (F @ at) + shift * at

        x, steps = refined(inverse, product, b)
        return checked(x, SolverName.WOODBURY, steps, product(x), b, shift)


def refined(inverse: Product, product: Product, b: Tensor) -> tuple[Tensor, int]:
    """Solve, and again for what is left, at most REFINEMENTS times while the residual is above the tolerance.

    Args:
        inverse: An approximate inverse of `product`, (d_P,) -> (d_P,).
        product: The system's matrix as a product.
        b: (d_P,).

    Returns:
        x (d_P,) with product(x) = b, and how many solves it took.
    """
    x = inverse(b)
    for steps in range(1, REFINEMENTS + 1):
        left = b - product(x)
        if float(left.norm()) <= tolerance_of(b.dtype) * float(b.norm()):
            return x, steps
        x = x + inverse(left)
    return x, REFINEMENTS + 1
