"""A snapshot that keeps the sums of which Kronecker factors and diagonals are made, for large models.

Axes: d trained parameters, d_P of them in a block.

The sums (kronecker/sums.py) are subtracted exactly, so the result is the K-FAC curvature that a fresh pass over the
retained samples would give, with the approximation that K-FAC itself is, and nothing further. This holds with drawn
labels too, as a draw belongs to its sample and not to its place (draws.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from oubli.components.curvature.kfac import kronecker_system
from oubli.components.curvature.kronecker.layers import Coverage, block_coverage, find_coverage
from oubli.components.curvature.kronecker.sums import KroneckerPass, KroneckerSums, LayerSums
from oubli.components.curvature.protocol import Curvature
from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot, SnapshotForm
from oubli.components.errors import ConfigurationError
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES, first_sample
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples, SampleSource
from oubli.components.progress import Progress


@dataclass(frozen=True)
class KroneckerSnapshot(CurvatureSnapshot):
    """Sums that make the Kronecker factors of layers, and the diagonals of what lies in none.

    Attributes:
        factors: Over a share of the n samples.
    """

    form: ClassVar[SnapshotForm] = SnapshotForm.KRONECKER
    factors: KroneckerSums

    @classmethod
    def take(
        cls,
        objective: Objective,
        theta: Tensor,
        source: SampleSource,
        *,
        seed: int | None = 0,
        share: float = 1.0,
        budget_bytes: int = MEMORY_BUDGET_BYTES,
        on_progress: Progress | None = None,
    ) -> Self:
        """The snapshot of a source at theta (d,), in one pass over it.

        Args:
            objective: The model and its loss.
            theta: (d,) weights.
            source: The training samples.
            seed: Of the drawn labels; None, and any loss that is not one of `losses.Loss`, takes all columns of the
                loss's Hessian.
            share: Of the samples that the factors are made of, in (0, 1]. With many samples a part gives the same
                factors, and the pass costs little more than the gradient's. Which samples follows from their inputs.
            budget_bytes: What one chunk's temporaries may take.
            on_progress: Told the fraction of samples passed.

        Raises:
            ConfigurationError: The source is empty, or the share out of its range or so small that no sample is in it.
        """
        seed = None if objective.kind is None else seed
        gradient = torch.zeros_like(theta)
        coverage = find_coverage(objective, first_sample(objective, source))
        factors = KroneckerPass(objective, theta, coverage, seed, budget_bytes, share).sums(
            source, gradient=gradient, on_progress=on_progress
        )
        return cls(len(source), gradient, _checked(factors), seed=seed, share=share)

    def without(
        self, restriction: Restriction, removed: Samples, *, budget_bytes: int = MEMORY_BUDGET_BYTES
    ) -> Curvature:
        self._left(len(removed))
        objective = restriction.objective
        block = block_coverage(restriction, find_coverage(objective, first_sample(objective, removed)))
        factors = self._factors_less(objective, restriction.theta, removed, block.coverage, budget_bytes)
        return kronecker_system(restriction, block, factors)

    def facts(self) -> dict[str, object]:
        return super().facts() | {
            "count": self.factors.count,
            "rows": {name: layer.rows for name, layer in self.factors.layers.items()},
            "diagonal": list(self.factors.squares),
        }

    @classmethod
    def restored(cls, n: int, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> Self:
        rows, diagonal, count = facts["rows"], facts["diagonal"], facts["count"]
        if not (isinstance(rows, Mapping) and isinstance(diagonal, list) and isinstance(count, int)):
            raise TypeError("rows, diagonal or count")
        layers = {
            name: LayerSums(tensors[f"layer.{name}.inputs"], tensors[f"layer.{name}.outputs"], int(number))
            for name, number in rows.items()
        }
        squares = {name: tensors[f"diagonal.{name}"] for name in diagonal}
        return cls(n, tensors["gradient"], KroneckerSums(layers, squares, count))

    def _curvature_tensors(self) -> dict[str, Tensor]:
        named = {}
        for name, layer in self.factors.layers.items():
            named[f"layer.{name}.inputs"] = layer.inputs
            named[f"layer.{name}.outputs"] = layer.outputs
        return named | {f"diagonal.{name}": values for name, values in self.factors.squares.items()}

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Self:
        layers = {
            name: LayerSums(function(layer.inputs), function(layer.outputs), layer.rows)
            for name, layer in self.factors.layers.items()
        }
        squares = {name: function(values) for name, values in self.factors.squares.items()}
        return dataclasses.replace(self, factors=KroneckerSums(layers, squares, self.factors.count))

    def _less(self, objective: Objective, theta: Tensor, removed: Samples, budget_bytes: int) -> Self:
        coverage = find_coverage(objective, first_sample(objective, removed))
        factors = self._factors_less(objective, theta, removed, coverage, budget_bytes)
        return dataclasses.replace(self, factors=factors)

    def _factors_less(
        self, objective: Objective, theta: Tensor, removed: Samples, coverage: Coverage, budget_bytes: int
    ) -> KroneckerSums:
        """What the coverage is of, less the removed samples' part: by the pass that the sums come from."""
        own = KroneckerPass(objective, theta, coverage, self.seed, budget_bytes, self.share).sums(removed)
        return _checked(self._part(own).less(own))

    def _part(self, own: KroneckerSums) -> KroneckerSums:
        """The part of the kept sums that has to do with what `own` is of."""
        kept = self.factors
        missing = (set(own.layers) - set(kept.layers)) | (set(own.squares) - set(kept.squares))
        if missing:
            raise ConfigurationError(
                f"The snapshot lacks {', '.join(sorted(missing))}.", remedy="Take it with the objective that is used."
            )
        return KroneckerSums(
            {name: kept.layers[name] for name in own.layers},
            {name: kept.squares[name] for name in own.squares},
            kept.count,
        )


def _checked(factors: KroneckerSums) -> KroneckerSums:
    """The factors, where there is a sample in them."""
    if factors.count <= 0:
        raise ConfigurationError(
            "No sample is left that the snapshot's factors are made of.",
            remedy="Take the snapshot with a larger share, or remove with a pass over the retained samples.",
        )
    return factors
