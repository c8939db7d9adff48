"""A snapshot that keeps the leading directions of an estimate of the curvature, for models of moderate size.

Axes: k directions kept, d trained parameters.

The removed samples' part is subtracted within the directions (leading_directions.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from oubli.components.curvature.protocol import Curvature
from oubli.components.curvature.snapshots.leading_directions import LeadingDirections
from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot, SnapshotForm
from oubli.components.errors import ConfigurationError
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples, SampleSource


@dataclass(frozen=True)
class LowRankSnapshot(CurvatureSnapshot):
    """Leading directions of the Gauss-Newton matrix.

    Attributes:
        directions: Of the mean over the n samples.
    """

    form: ClassVar[SnapshotForm] = SnapshotForm.LOW_RANK
    directions: LeadingDirections

    @classmethod
    def take(
        cls,
        objective: Objective,
        theta: Tensor,
        source: SampleSource,
        *,
        seed: int = 0,
        budget_bytes: int = MEMORY_BUDGET_BYTES,
    ) -> Self:
        """The snapshot of a source at theta (d,).

        Args:
            objective: The model and its loss, whose labels can be drawn.
            theta: (d,) weights.
            source: The training samples: one pass for the gradient, one for the samples that are looked at.
            seed: Of those samples and of their labels.
            budget_bytes: What one chunk's temporaries may take.

        Raises:
            ConfigurationError: The source is empty, or the loss is not one of `losses.Loss`.
        """
        gradient = gradient_sum(objective, theta, source, budget_bytes=budget_bytes)
        whole = Restriction(objective, theta, None)
        directions = LeadingDirections.take(whole, source, seed=seed, budget_bytes=budget_bytes)
        return cls(len(source), gradient, directions, seed=seed)

    def without(
        self, restriction: Restriction, removed: Samples, *, budget_bytes: int = MEMORY_BUDGET_BYTES
    ) -> Curvature:
        self._left(len(removed))
        less = self._less(restriction.objective, restriction.theta, removed, budget_bytes)
        return less.directions.on(restriction.indices)

    @classmethod
    def restored(cls, n: int, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> Self:  # noqa: ARG003
        directions = LeadingDirections(tensors["directions.basis"], tensors["directions.values"])
        return cls(n, tensors["gradient"], directions)

    def _curvature_tensors(self) -> dict[str, Tensor]:
        return {"directions.basis": self.directions.basis, "directions.values": self.directions.values}

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        directions = LeadingDirections(function(self.directions.basis), function(self.directions.values))
        return dataclasses.replace(self, directions=directions)

    def _less(self, objective: Objective, theta: Tensor, removed: Samples, budget_bytes: int) -> Self:
        whole = Restriction(objective, theta, None)
        if self.directions.basis.shape[1] != whole.size:
            raise ConfigurationError(
                f"The snapshot's directions are not of {whole.size} parameters.",
                remedy="Take it with the objective that is used.",
            )
        left = self.directions.less(whole, removed, self.n, seed=self.seed or 0, budget_bytes=budget_bytes)
        return dataclasses.replace(self, directions=left)
