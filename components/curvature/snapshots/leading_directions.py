"""The leading directions of the Gauss-Newton matrix, estimated from some samples.

Axes: n training samples, r of them looked at, m removed samples, k directions kept, d parameters, d_P of a block.

    G ~ V^T diag(values) V,    V (k, d) with orthonormal rows: leading eigenvectors of the sampled Fisher of r samples

Unlike Kronecker factors it knows how layers act together, which for networks with normalisation layers is most of what
a step can do wrong; what it leaves out is treated as flat, and left to the damping.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.curvature.fisher import SampledFisher
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples, SampleSource
from oubli.components.solvers import DenseSystem, System, WoodburySystem, full_precision

SAMPLES = 1024
"""r: the estimate's error falls with its root, its cost rises with its square."""

DIRECTIONS = 256
"""k: past it, the eigenvalues of the networks measured here lie below the dampings they are used with."""


@dataclass(frozen=True)
class LowRankCurvature:
    """A curvature of low rank.

    Attributes:
        factor: (k, d_P); the matrix is factor^T factor.
    """

    factor: Tensor

    @property
    def size(self) -> int:
        """d_P."""
        return self.factor.shape[1]

    def matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector (d_P,); (d_P,)."""
        return self.factor.T @ (self.factor @ vector)

    def dense(self) -> Tensor:
        """The whole matrix (d_P, d_P)."""
        return self.factor.T @ self.factor

    def system(self) -> System:
        """Solved through Woodbury, or by Cholesky for a block of no more parameters than directions."""
        return WoodburySystem(self.factor) if len(self.factor) < self.size else DenseSystem(self.dense())


@dataclass(frozen=True)
class LeadingDirections:
    """Leading eigenvectors and eigenvalues of the mean over n samples.

    Attributes:
        basis: V (k, d) with orthonormal rows.
        values: (k,), falling.
    """

    basis: Tensor
    values: Tensor

    @classmethod
    def take(
        cls,
        restriction: Restriction,
        source: SampleSource,
        *,
        seed: int,
        samples: int = SAMPLES,
        directions: int = DIRECTIONS,
        budget_bytes: int = MEMORY_BUDGET_BYTES,
    ) -> LeadingDirections:
        """From some of a source's samples.

        Args:
            restriction: Of all parameters, at the weights.
            source: The training samples.
            seed: Of the samples, evenly drawn, and of their labels, drawn as `SampledFisher` draws them.
            samples: r, how many are looked at.
            directions: k, how many are kept at most.
            budget_bytes: What one chunk's temporaries may take.

        Raises:
            ConfigurationError: The source is empty, or the loss is not one of `losses.Loss`.
        """
        chosen = _some(source, samples, seed)
        rows = SampledFisher(restriction, chosen, budget_bytes, seed=seed).factor()
        with full_precision():
            # R R^T = U diag(values) U^T, so the eigenvectors of R^T R are R^T U / sqrt(values)
            values, vectors = torch.linalg.eigh(rows @ rows.T)
            # Directions that rounding makes up have no length to be divided by.
            kept = values > values[-1] * len(rows) * torch.finfo(rows.dtype).eps
            values, vectors = values[kept].flip(0)[:directions], vectors[:, kept].flip(1)[:, :directions]
            return cls((vectors.T @ rows) / values.sqrt()[:, None], values)

    def less(
        self, restriction: Restriction, removed: Samples, n: int, *, seed: int, budget_bytes: int = MEMORY_BUDGET_BYTES
    ) -> LeadingDirections:
        """Over the n - m retained samples: n G less the removed samples' part, within V.

        The removed samples' part may be larger than the estimate holds of it, since few of them were looked at; what
        would become negative is 0.

        Args:
            restriction: Of all parameters, at the weights that the directions were taken at.
            removed: The m samples.
            n: Samples that the directions stand for.
            seed: The one that the directions were taken with.
            budget_bytes: What one chunk's temporaries may take.
        """
        rows = SampledFisher(restriction, removed, budget_bytes, seed=seed).factor()
        with full_precision():
            # R -> R V^T, then (n diag(values) - m V R^T R V^T) / (n - m) in the coordinates of V
            within = rows @ self.basis.T
            core = (n * torch.diag(self.values) - len(removed) * within.T @ within) / (n - len(removed))
            values, vectors = torch.linalg.eigh((core + core.T) / 2)
            return LeadingDirections(vectors.flip(1).T @ self.basis, values.flip(0).clamp(min=0))

    def on(self, indices: Tensor) -> LowRankCurvature:
        """The curvature of the block with these flat parameter indices (d_P,)."""
        return LowRankCurvature(self.values.sqrt()[:, None] * self.basis[:, indices])


def _some(source: SampleSource, count: int, seed: int) -> Samples:
    """At most `count` samples, each as likely as any other, in the source's order; read in one pass."""
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))[:count]
    wanted = order.sort().values
    inputs, labels, start = [], [], 0
    for batch in source.batches(1024):
        inside = wanted[(wanted >= start) & (wanted < start + len(batch))] - start
        if len(inside):
            chosen = batch.select(inside.to(batch.labels.device))
            inputs.append(chosen.inputs)
            labels.append(chosen.labels)
        start += len(batch)
    return Samples(torch.cat(inputs), torch.cat(labels))
