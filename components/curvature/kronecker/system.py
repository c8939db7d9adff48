"""A block-diagonal matrix in its eigenbasis: Kronecker layers, and single parameters.

Axes: d_P parameters of the block, C outputs of a layer, I inputs of one output (bias included).

A layer's part is U diag(e) U^T with U = left (x) right, so for weights W (C, I) of a vector

    A W = left (e * (left^T W right)) right^T,      (A + shift)^{-1} W = left ((left^T W right) / (e + shift)) right^T.

A shift is thereby added exactly, not split over the factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.solvers import Solution, SolverName, System, full_precision
from oubli.components.solvers.direct import refined
from oubli.components.solvers.solution import check_finite, checked, indefinite


@dataclass(frozen=True)
class KroneckerBlock:
    """One layer.

    Attributes:
        places: (C, I) int64, where in the block its parameters are.
        left: (C, C), orthogonal.
        right: (I, I), orthogonal.
        eigenvalues: e (C, I).
    """

    places: Tensor
    left: Tensor
    right: Tensor
    eigenvalues: Tensor

    def applied(self, vector: Tensor, scale: Tensor) -> Tensor:
        """left (scale * (left^T W right)) right^T for the layer's part W of a vector.

        Args:
            vector: (d_P,).
            scale: (C, I).

        Returns:
            (C, I).
        """
        # W -> left^T W right
        rotated = self.left.T @ vector[self.places] @ self.right
        return self.left @ (scale * rotated) @ self.right.T


@dataclass(frozen=True)
class KroneckerSystem:
    """The whole block.

    Attributes:
        size: d_P.
        blocks: The layers.
        places: (k,) int64, where in the block the single parameters are.
        values: (k,), their diagonal.

    Raises:
        NonFiniteInput: An eigenvalue is not finite.
    """

    size: int
    blocks: tuple[KroneckerBlock, ...]
    places: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        for part in (self.values, *(block.eigenvalues for block in self.blocks)):
            check_finite(part)

    def system(self) -> System:
        """Itself."""
        return self

    def mean_diagonal(self) -> float:
        """trace / d_P, exact."""
        return float(sum(block.eigenvalues.sum() for block in self.blocks) + self.values.sum()) / self.size

    @full_precision()
    def matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector (d_P,); (d_P,)."""
        result = torch.zeros_like(vector)
        for block in self.blocks:
            result[block.places] = block.applied(vector, block.eigenvalues)
        result[self.places] = self.values * vector[self.places]
        return result

    @full_precision()
    def dense(self) -> Tensor:
        """The matrix (d_P, d_P), for tests and small blocks."""
        like = self.values.new_zeros(self.size, self.size)
        for block in self.blocks:
            basis = torch.kron(block.left, block.right)
            at = block.places.reshape(-1)
            like[at[:, None], at] = (basis * block.eigenvalues.reshape(-1)) @ basis.T
        like[self.places, self.places] = self.values
        return like

    @full_precision()
    def solve(self, b: Tensor, shift: float) -> Solution:
        """x with (A + shift * I) x = b, by dividing in the eigenbasis.

        Args:
            b: (d_P,).
            shift: What is added to the diagonal.

        Raises:
            IndefiniteCurvature: An eigenvalue and `shift` are not above 0 in sum.
            NumericalError: The residual stays above the tolerance.
        """
        parts = [block.eigenvalues for block in self.blocks] + ([self.values] if len(self.values) else [])
        lowest = min(float(part.min()) for part in parts)
        if lowest + shift <= 0:
            raise indefinite(lowest, "smallest eigenvalue", shift)

        def inverse(right: Tensor) -> Tensor:
            result = torch.zeros_like(right)
            for block in self.blocks:
                result[block.places] = block.applied(right, 1 / (block.eigenvalues + shift))
            result[self.places] = right[self.places] / (self.values + shift)
            return result

        def product(at: Tensor) -> Tensor:
            return self.matvec(at) + shift * at

        x, steps = refined(inverse, product, b)
        return checked(x, SolverName.EIGENDECOMPOSITION, steps, product(x), b, shift)
