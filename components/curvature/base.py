"""What the curvatures of samples have in common.

Axes: n samples, b samples of a chunk, d_P parameters of the block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from oubli.components.curvature.costs import product_flops
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES, pass_chunk
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples, SampleSource
from oubli.components.solvers import System, prepare_system


@dataclass(frozen=True)
class SourceCurvature:
    """A curvature of the mean loss over `source`, at the weights and on the block of `restriction`.

    Nothing is computed before a method is called.

    Attributes:
        restriction: The block, at its weights.
        source: The n samples.
        budget_bytes: What one chunk's temporaries may take.
    """

    restriction: Restriction
    source: SampleSource
    budget_bytes: int = MEMORY_BUDGET_BYTES

    @property
    def size(self) -> int:
        """d_P."""
        return self.restriction.size

    @property
    def objective(self) -> Objective:
        """The model and its loss."""
        return self.restriction.objective

    def batches(self) -> Iterator[Samples]:
        """Prepared samples in chunks of a size that the derivative of a gradient fits into the budget with."""
        # The graph of the gradient is kept beside the graph of the outputs.
        chunk = pass_chunk(self.objective, self.source, self.budget_bytes // 2)
        return map(self.objective.prepare, self.source.batches(chunk))


@dataclass(frozen=True)
class FactoredCurvature(SourceCurvature, ABC):
    """A curvature that has a factor A with A^T A = the matrix, so that Woodbury's formula can solve with it."""

    @abstractmethod
    def rank_bound(self) -> int:
        """The number of rows of `factor`, which the rank cannot exceed."""

    @abstractmethod
    def matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector (d_P,): one pass over the source, no matrix built."""

    @abstractmethod
    def mean_diagonal(self) -> float:
        """trace / d_P."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The whole matrix (d_P, d_P), symmetric."""

    @abstractmethod
    def factor(self) -> Tensor:
        """A (rows, d_P) with A^T A = the matrix."""

    def product_flops(self) -> float:
        """Floating-point operations of one product."""
        return product_flops(self.restriction, self.source)

    def system(self) -> System:
        """Solved through Woodbury, Cholesky or conjugate gradients, as its size asks for."""
        return prepare_system(self, self.objective.dtype)
