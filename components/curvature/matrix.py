"""A curvature that is a given matrix.

Axes: d_P parameters of the block.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from oubli.components.solvers import DenseSystem, System


@dataclass(frozen=True)
class MatrixCurvature:
    """A curvature that is known as a matrix.

    Attributes:
        matrix: (d_P, d_P), symmetric.
    """

    matrix: Tensor

    @property
    def size(self) -> int:
        """d_P."""
        return len(self.matrix)

    def matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector (d_P,); (d_P,)."""
        return self.matrix @ vector

    def dense(self) -> Tensor:
        """The matrix itself."""
        return self.matrix

    def system(self) -> System:
        """Solved by Cholesky."""
        return DenseSystem(self.matrix)
