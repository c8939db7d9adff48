"""A snapshot that keeps the whole Gauss-Newton matrix, for models of few parameters.

Axes: d trained parameters, d_P of them in a block.

The removed samples' part is subtracted exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.matrix import MatrixCurvature
from oubli.components.curvature.protocol import Curvature
from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot, SnapshotForm
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples, SampleSource


@dataclass(frozen=True)
class DenseSnapshot(CurvatureSnapshot):
    """The sum of the samples' generalised Gauss-Newton matrices.

    Attributes:
        matrix: (d, d), symmetric: n times the mean loss's.
    """

    form: ClassVar[SnapshotForm] = SnapshotForm.DENSE
    matrix: Tensor

    @classmethod
    def take(
        cls, objective: Objective, theta: Tensor, source: SampleSource, *, budget_bytes: int = MEMORY_BUDGET_BYTES
    ) -> Self:
        """The snapshot of a source at theta (d,); two passes over it."""
        gradient = gradient_sum(objective, theta, source, budget_bytes=budget_bytes)
        matrix = _gauss_newton_sum(Restriction(objective, theta, None), source, budget_bytes)
        return cls(len(source), gradient, matrix)

    def without(
        self, restriction: Restriction, removed: Samples, *, budget_bytes: int = MEMORY_BUDGET_BYTES
    ) -> Curvature:
        left = self._left(len(removed))
        own = _gauss_newton_sum(restriction, removed, budget_bytes)
        inside = restriction.indices
        return MatrixCurvature((self.matrix[inside[:, None], inside] - own) / left)

    @classmethod
    def restored(cls, n: int, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> Self:  # noqa: ARG003
        return cls(n, tensors["gradient"], tensors["matrix"])

    def _curvature_tensors(self) -> dict[str, Tensor]:
        return {"matrix": self.matrix}

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        return dataclasses.replace(self, matrix=function(self.matrix))

    def _less(self, objective: Objective, theta: Tensor, removed: Samples, budget_bytes: int) -> Self:
        own = _gauss_newton_sum(Restriction(objective, theta, None), removed, budget_bytes)
        return dataclasses.replace(self, matrix=self.matrix - own)


def _gauss_newton_sum(restriction: Restriction, source: SampleSource, budget_bytes: int) -> Tensor:
    """(d_P, d_P), over the source's samples."""
    return GaussNewton(restriction, source, budget_bytes).dense() * len(source)
