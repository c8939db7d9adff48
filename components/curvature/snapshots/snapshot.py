"""Curvature kept from training, so that a removal needs the removed samples alone.

Axes: n training samples S, m removed samples U, n - m retained samples R, d trained parameters, d_P of them in a block.

At the weights w* that training ended with, sums over S are kept. What U put into them is computed from U, at w*, and
subtracted:

    sum_R grad loss = sum_S - sum_U,        curvature over R = (sum_S - sum_U) / (n - m)

There is a class for each form in which the curvature is kept: `DenseSnapshot` for small d, `LowRankSnapshot` for
moderate d, `KroneckerSnapshot` for what is larger. `taking.take_snapshot` chooses one.

Everything is at w*. After a removal the weights are elsewhere, and the snapshot is not: for a chain of removals pass
`without` all samples removed since training, with theta = w*; the step is then from w*, not from the last version. What
`advance` returns has lost the removed samples' part, but is still of w*: stale by as far as the weights have moved.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Self

from torch import Tensor

from oubli.components.curvature.protocol import Curvature
from oubli.components.curvature.secant import Secant
from oubli.components.errors import ConfigurationError
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples


class SnapshotForm(StrEnum):
    """How a snapshot keeps the curvature."""

    DENSE = "dense"
    LOW_RANK = "low_rank"
    KRONECKER = "kronecker"


@dataclass(frozen=True)
class CurvatureSnapshot(ABC):
    """Sums over the n training samples, at the weights that training ended with; a subclass holds the curvature.

    Attributes:
        form: How the curvature is kept.
        n: Samples in the sums.
        gradient: (d,) sum of the loss gradients, without the L2 term.
        seed: Of drawn labels and samples; None where none were drawn.
        share: Of the samples that the curvature is made of (the gradient is of all).
        secant: Of the last epochs of training; None where none was recorded.
    """

    form: ClassVar[SnapshotForm]
    n: int
    gradient: Tensor
    seed: int | None = field(default=None, kw_only=True)
    share: float = field(default=1.0, kw_only=True)
    secant: Secant | None = field(default=None, kw_only=True)

    @abstractmethod
    def without(
        self, restriction: Restriction, removed: Samples, *, budget_bytes: int = MEMORY_BUDGET_BYTES
    ) -> Curvature:
        """The curvature of the mean loss over the retained samples, on a block.

        Args:
            restriction: The block, at the weights that the snapshot was taken at.
            removed: Samples that the snapshot was taken over.
            budget_bytes: What one chunk's temporaries may take.

        Raises:
            ConfigurationError: None or all of the samples are removed, the objective is another than the snapshot's,
                or the block cuts through an output unit where the form is Kronecker.
            IndefiniteCurvature: What is left is not positive semi-definite, as when `restriction` or `removed` is not
                what it should be; raised here for factors, and in solving for a matrix.
        """

    def advance(
        self, objective: Objective, theta: Tensor, removed: Samples, *, budget_bytes: int = MEMORY_BUDGET_BYTES
    ) -> Self:
        """The snapshot without the removed samples' part, still of the weights that it was taken at.

        For a later removal that reads neither the retained samples nor those removed before. Gradient and curvature
        stay those of theta, though the weights have moved: use it where they moved little. The secant is dropped, as
        what the removed samples put into it is not known.

        Args:
            objective: What the snapshot was taken of.
            theta: (d,) weights that the snapshot was taken at.
            removed: Samples that the snapshot was taken over.
            budget_bytes: What one chunk's temporaries may take.

        Raises:
            ConfigurationError: As for `without`.
            IndefiniteCurvature: As for `without`.
        """
        left = self._left(len(removed))
        gradient = self.gradient - gradient_sum(objective, theta, removed, budget_bytes=budget_bytes)
        less = self._less(objective, theta, removed, budget_bytes)
        return dataclasses.replace(less, n=left, gradient=gradient, secant=None)

    def to(self, objective: Objective) -> Self:
        """The snapshot on the objective's device and in its dtype."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(objective.device, objective.dtype)

        return dataclasses.replace(self._mapped(move), gradient=move(self.gradient))

    def tensors(self) -> dict[str, Tensor]:
        """Everything large, by name; with `facts`, all that `restore_snapshot` needs."""
        named = {"gradient": self.gradient, **self._curvature_tensors()}
        if self.secant is not None:
            named |= {"secant.step": self.secant.step, "secant.change": self.secant.change}
        return {name: tensor.detach().contiguous() for name, tensor in named.items()}

    def facts(self) -> dict[str, object]:
        """The scalars, as JSON knows them; the same names for every form."""
        return {
            "n": self.n,
            "form": self.form.value,
            "seed": self.seed,
            "share": self.share,
            "count": 0,
            "rows": {},
            "diagonal": [],
            "secant": self.secant is not None,
        }

    @classmethod
    @abstractmethod
    def restored(cls, n: int, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> Self:
        """The gradient and the curvature of a stored snapshot of n samples; KeyError or TypeError where one lacks."""

    @abstractmethod
    def _curvature_tensors(self) -> dict[str, Tensor]:
        """The curvature's tensors by the names that they are stored under."""

    @abstractmethod
    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        """With `function` of the curvature's tensors in their place."""

    @abstractmethod
    def _less(self, objective: Objective, theta: Tensor, removed: Samples, budget_bytes: int) -> Self:
        """With the curvature less the removed samples' part; the count and the gradient are as before."""

    def _left(self, removed: int) -> int:
        """n - m, at least 1."""
        if not 0 < removed < self.n:
            raise ConfigurationError(
                f"{removed} samples cannot be taken from a snapshot of {self.n}.",
                remedy="Pass at least one removed sample, and fewer than the model was trained on.",
            )
        return self.n - removed
