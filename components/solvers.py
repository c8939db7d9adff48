"""Solving (A + shift * I) x = b for a curvature A, in the way that its size asks for.

Axes: d_P parameters of the block, r rows of a factor (A = factor^T factor).

Three ways, tried in this order by `choose_solver`:

1. Woodbury, where r < d_P: work 2 r^2 d_P + r^3 / 3 for an r x r matrix in place of a d_P x d_P one.
2. Cholesky, where building A (2 r d_P^2) and factoring it (d_P^3 / 3) stay affordable: exact, and it finds any
   negative curvature there is.
3. Conjugate gradients on products otherwise: each iteration is one pass over the samples, nothing is stored but
   vectors. Negative curvature is found only where the iteration meets it.

The direct ways are preferred while they cost seconds, since their error does not depend on the conditioning that an
iteration needs, and no pass over the data is repeated. No way returns a solution for an indefinite matrix: that
solution would not lower the objective, and conjugate gradients that kept such an iterate have destroyed models. Nor
does any return a vector whose own residual, computed anew, is above `tolerance_of` its dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from oubli.components.errors import IndefiniteCurvature, NonFiniteInput, NumericalError

DIRECT_FLOPS = 4e11
"""What a direct solve may cost: some ten seconds on two CPU cores in float64."""

DIRECT_BYTES = 2 * 2**30
"""What the matrices of a direct solve may take."""

CG_ITERATIONS = 1000

REFINEMENTS = 2
"""Steps of iterative refinement at most: what two cannot mend lies in the rounding of the product itself."""

Product = Callable[[Tensor], Tensor]


class SolverName(StrEnum):
    """How a system was solved."""

    CHOLESKY = "cholesky"
    WOODBURY = "woodbury"
    CONJUGATE_GRADIENTS = "conjugate_gradients"


@dataclass(frozen=True)
class Solution:
    """x (d_P,), how it was found, and its relative residual ||(A + shift I) x - b|| / ||b||."""

    x: Tensor
    solver: SolverName
    iterations: int
    residual: float


class Curvature(Protocol):
    """A symmetric (d_P, d_P) matrix that can be asked for in several forms."""

    @property
    def size(self) -> int: ...

    def rank_bound(self) -> int: ...

    def matvec(self, vector: Tensor) -> Tensor: ...

    def mean_diagonal(self) -> float: ...

    def dense(self) -> Tensor: ...

    def factor(self) -> Tensor: ...


class System(Protocol):
    """A curvature in the form that it will be solved in."""

    def mean_diagonal(self) -> float:
        """trace(A) / d_P."""
        ...

    def solve(self, b: Tensor, shift: float) -> Solution:
        """x with (A + shift * I) x = b.

        Raises IndefiniteCurvature where A + shift * I is not positive definite, NumericalError where the residual
        stays above `tolerance_of` the dtype.
        """
        ...


def choose_solver(size: int, rank: int, itemsize: int) -> SolverName:
    """The way for a d_P = `size` block of a matrix with r = `rank` rows of factor, `itemsize` bytes a number."""
    if rank < size:
        flops = 2 * rank**2 * size + rank**3 / 3
        if flops <= DIRECT_FLOPS and (rank * size + 2 * rank**2) * itemsize <= DIRECT_BYTES:
            return SolverName.WOODBURY
    flops = 2 * rank * size**2 + size**3 / 3
    if flops <= DIRECT_FLOPS and 3 * size**2 * itemsize <= DIRECT_BYTES:
        return SolverName.CHOLESKY
    return SolverName.CONJUGATE_GRADIENTS


def tolerance_of(dtype: torch.dtype) -> float:
    """The relative residual that a solution may have: 4 sqrt(eps), 6e-8 in float64 and 1.4e-3 in float32.

    Half the digits. Rounding leaves about eps times the condition number, 1e-4 for a small network in float32. What
    stays of the gradient for want of a thousandth of b is far less than what the linearisation leaves; with much
    more, the step's small directions are rounding and not curvature.
    """
    return 4 * float(torch.finfo(dtype).eps ** 0.5)


def prepare_system(curvature: Curvature, dtype: torch.dtype) -> System:
    """The curvature in the form that `choose_solver` picks, built once for all solves with it.

    Where the pick is Woodbury but a custom loss is not convex in the outputs, there is no factor, and one of the
    other ways takes its place: the damped matrix may still be positive definite. NonFiniteInput where the matrix or
    its factor is not finite.
    """
    solver = choose_solver(curvature.size, curvature.rank_bound(), dtype.itemsize)
    if solver is SolverName.WOODBURY:
        try:
            return WoodburySystem(curvature.factor())
        except IndefiniteCurvature:
            # A rank at the size itself rules Woodbury out.
            solver = choose_solver(curvature.size, curvature.size, dtype.itemsize)
    if solver is SolverName.CHOLESKY:
        return DenseSystem(curvature.dense())
    return ProductSystem(curvature.matvec, curvature.mean_diagonal)


@dataclass(frozen=True)
class DenseSystem:
    """A as a (d_P, d_P) symmetric matrix; NonFiniteInput where it is not finite."""

    matrix: Tensor

    def __post_init__(self) -> None:
        _check_finite(self.matrix)

    @cached_property
    def lowest(self) -> float:
        """The smallest eigenvalue, which costs more than a solve: found once, for the message alone."""
        return float(torch.linalg.eigvalsh(self.matrix)[0])

    def mean_diagonal(self) -> float:
        return float(self.matrix.diagonal().mean())

    def solve(self, b: Tensor, shift: float) -> Solution:
        """By Cholesky, refined where the residual asks for it."""
        shifted = self.matrix.clone()
        shifted.diagonal().add_(shift)
        triangle, failed = torch.linalg.cholesky_ex(shifted)
        if int(failed):
            raise _indefinite(self.lowest, "smallest eigenvalue", shift)

        def inverse(right: Tensor) -> Tensor:
            return torch.cholesky_solve(right[:, None], triangle)[:, 0]

        x, steps = _refined(inverse, lambda at: shifted @ at, b)
        return _checked(x, SolverName.CHOLESKY, steps, shifted @ x, b, shift)


@dataclass(frozen=True)
class WoodburySystem:
    """A = factor^T factor with factor (r, d_P), r < d_P.

    (shift I + F^T F)^{-1} = (I - F^T (shift I + F F^T)^{-1} F) / shift. NonFiniteInput where F is not finite.
    """

    factor: Tensor

    def __post_init__(self) -> None:
        _check_finite(self.factor)

    def mean_diagonal(self) -> float:
        return float(self.factor.square().sum()) / self.factor.shape[1]

    def solve(self, b: Tensor, shift: float) -> Solution:
        """Through the (r, r) matrix F F^T + shift I; `shift` must be positive, as A itself is singular."""
        if shift <= 0:
            raise _indefinite(0.0, "smallest eigenvalue", shift)
        F = self.factor
        inner = F @ F.T
        inner.diagonal().add_(shift)
        triangle, failed = torch.linalg.cholesky_ex(inner)
        if int(failed):
            raise _indefinite(0.0, "smallest eigenvalue", shift)

        def inverse(right: Tensor) -> Tensor:
            return (right - F.T @ torch.cholesky_solve((F @ right)[:, None], triangle)[:, 0]) / shift

        def product(at: Tensor) -> Tensor:
            return F.T @ (F @ at) + shift * at

        x, steps = _refined(inverse, product, b)
        return _checked(x, SolverName.WOODBURY, steps, product(x), b, shift)


@dataclass(frozen=True)
class ProductSystem:
    """A as a product v -> A v."""

    matvec: Product
    diagonal: Callable[[], float]

    def mean_diagonal(self) -> float:
        return self.diagonal()

    def solve(self, b: Tensor, shift: float) -> Solution:
        """By conjugate gradients (Hestenes, Stiefel 1952) from zero.

        Stops at a relative residual of eps^(5/8), 2e-10 in float64 and 5e-5 in float32, which rounding still lets an
        ill-conditioned system reach. NumericalError where that takes more than CG_ITERATIONS, NonFiniteInput where
        a product is not finite.
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
                return _checked(x, SolverName.CONJUGATE_GRADIENTS, iteration, self._shifted(x, shift), b, shift)
            product = self._shifted(direction, shift)
            curvature = float(direction.dot(product))
            if not math.isfinite(curvature):
                raise _not_finite()
            if curvature <= 0:
                along = curvature / float(direction.dot(direction)) - shift
                raise _indefinite(along, f"curvature met in iteration {iteration + 1}", shift)
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


def _refined(inverse: Product, product: Product, b: Tensor) -> tuple[Tensor, int]:
    """x (d_P,) with product(x) = b, and the solves it took: `inverse` once, and again on what it leaves.

    At most REFINEMENTS times again, while the residual is above the tolerance.
    """
    x = inverse(b)
    for steps in range(1, REFINEMENTS + 1):
        left = b - product(x)
        if float(left.norm()) <= tolerance_of(b.dtype) * float(b.norm()):
            return x, steps
        x = x + inverse(left)
    return x, REFINEMENTS + 1


def _checked(x: Tensor, solver: SolverName, iterations: int, product: Tensor, b: Tensor, shift: float) -> Solution:
    """The solution x of product = (A + shift I) x = b, unless its residual is above the tolerance."""
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


def _check_finite(matrix: Tensor) -> None:
    if not bool(torch.isfinite(matrix).all()):
        raise _not_finite()


def _not_finite() -> NonFiniteInput:
    return NonFiniteInput(
        "The curvature is NaN or infinite.",
        remedy="Check the retained samples for missing or huge values, retrain, or compute in float64.",
    )


def _indefinite(curvature: float, what: str, shift: float) -> IndefiniteCurvature:
    return IndefiniteCurvature(
        f"The curvature is not positive definite: {what} {curvature:.3g}, with l2 and damping adding {shift:.3g}.",
        remedy=f"Use a damping that brings the sum above {abs(curvature):.3g}, or retrain.",
    )
