"""Which way a system is solved, from its sizes.

Axes: d_P parameters of the block, r rows of a factor (A = factor^T factor).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from oubli.components.errors import IndefiniteCurvature
from oubli.components.solvers.conjugate_gradients import ProductSystem
from oubli.components.solvers.direct import DenseSystem, WoodburySystem
from oubli.components.solvers.precision import full_precision
from oubli.components.solvers.solution import SolverName, System

DIRECT_FLOPS = 4e11
"""What a direct solve may cost: some ten seconds on two CPU cores in float64."""

DIRECT_BYTES = 2 * 2**30
"""What the matrices of a direct solve may take."""

EXPECTED_ITERATIONS = 100
"""Products that conjugate gradients are reckoned to take: with the usual damping, tens to some hundreds."""


class Factored(Protocol):
    """A symmetric (d_P, d_P) matrix that can be asked for in several forms."""

    @property
    def size(self) -> int: ...

    def rank_bound(self) -> int: ...

    def product_flops(self) -> float: ...

    def matvec(self, vector: Tensor) -> Tensor: ...

    def mean_diagonal(self) -> float: ...

    def dense(self) -> Tensor: ...

    def factor(self) -> Tensor: ...


def choose_solver(size: int, rank: int, itemsize: int, product_flops: float = 0.0) -> SolverName:
    """The way to solve a system, from its sizes.

    A direct way may cost DIRECT_FLOPS, or as much as conjugate gradients would, where that is more.

    Args:
        size: d_P.
        rank: r.
        itemsize: Bytes of a number.
        product_flops: What one product with the matrix costs.
    """
    affordable = max(DIRECT_FLOPS, EXPECTED_ITERATIONS * product_flops)
    if rank < size:
        flops = 2 * rank**2 * size + rank**3 / 3
        if flops <= affordable and (rank * size + 2 * rank**2) * itemsize <= DIRECT_BYTES:
            return SolverName.WOODBURY
    flops = 2 * rank * size**2 + size**3 / 3
    if flops <= affordable and 3 * size**2 * itemsize <= DIRECT_BYTES:
        return SolverName.CHOLESKY
    return SolverName.CONJUGATE_GRADIENTS


def prepare_system(curvature: Factored, dtype: torch.dtype) -> System:
    """The curvature in the form that `choose_solver` picks, built once for all solves with it.

    Where the pick is Woodbury but a custom loss is not convex in the outputs, there is no factor, and one of the
    other ways takes its place: the damped matrix may still be positive definite.

    Args:
        curvature: The matrix, (d_P, d_P).
        dtype: Of its numbers.

    Raises:
        NonFiniteInput: The matrix or its factor is not finite.
    """
    flops = curvature.product_flops()
    solver = choose_solver(curvature.size, curvature.rank_bound(), dtype.itemsize, flops)
    if solver is SolverName.WOODBURY:
        try:
            with full_precision():
                return WoodburySystem(curvature.factor())
        except IndefiniteCurvature:
            # A rank at the size itself rules Woodbury out.
            solver = choose_solver(curvature.size, curvature.size, dtype.itemsize, flops)
    if solver is SolverName.CHOLESKY:
        with full_precision():
            return DenseSystem(curvature.dense())
    return ProductSystem(curvature.matvec, curvature.mean_diagonal)
