"""What every curvature can be asked.

Axes: d_P parameters of the block.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from oubli.components.solvers import System

__all__ = ["Curvature", "System"]


class Curvature(Protocol):
    """A symmetric (d_P, d_P) matrix: the curvature of the mean loss over a source, on a block.

    Neither the L2 term nor any damping is in it: they are multiples of the identity, the `shift` of a solve.
    """

    @property
    def size(self) -> int:
        """d_P."""
        ...

    def matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector (d_P,); (d_P,)."""
        ...

    def dense(self) -> Tensor:
        """The whole matrix (d_P, d_P): for small blocks, and for tests."""
        ...

    def system(self) -> System:
        """The matrix in the form that its size asks for, built once for all solves with it."""
        ...
