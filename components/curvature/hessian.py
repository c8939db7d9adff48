"""The exact Hessian of the mean loss.

Axes: n samples, b samples of a chunk, k columns at once, d_P parameters of the block.

    H = (1/n) * sum_i d^2 loss_i / d w_P^2

by Hessian-vector products (Pearlmutter, *Fast exact multiplication by the Hessian*, Neural Computation 1994). Where the
model is short of a minimum H may be indefinite; whoever solves with it must notice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vjp

from oubli.components.curvature.base import SourceCurvature
from oubli.components.curvature.probes import TRACE_PROBES, random_signs
from oubli.components.curvature.samplewise import SampleMap
from oubli.components.model.attention import differentiable_attention
from oubli.components.model.chunking import activation_bytes, first_sample, samples_per_chunk
from oubli.components.model.samples import Samples
from oubli.components.solvers import DIRECT_BYTES, DenseSystem, ProductSystem, System, full_precision

DENSE_COLUMNS = 1500
"""Blocks up to this size are built and factored. A column costs one product, so this is what conjugate gradients may
cost at worst; in return any negative curvature is found, and several dampings share the matrix."""


@dataclass(frozen=True)
class Hessian(SourceCurvature):
    """H over `source`, at the weights and on the block of `restriction`. No result is kept."""

    def matvec(self, vector: Tensor) -> Tensor:
        """H v: one pass over the source, no matrix built.

        Args:
            vector: v (d_P,).

        Returns:
            (d_P,).
        """
        total = torch.zeros_like(vector)
        for samples in self.batches():
            with full_precision(), differentiable_attention():
                total += self._product(samples)(vector).detach()
        return total / len(self.source)

    def mean_diagonal(self) -> float:
        """trace(H) / d_P, estimated with random signs (Hutchinson 1990) from a fixed seed."""
        probes = random_signs(TRACE_PROBES, self.restriction.values)
        total = 0.0
        for samples in self.batches():
            with full_precision(), differentiable_attention():
                product = self._product(samples)
                # v^T H v
                total += sum(float(probe.dot(product(probe))) for probe in probes)
        return total / (TRACE_PROBES * len(self.source) * self.size)

    def dense(self) -> Tensor:
        """H as a (d_P, d_P) matrix, symmetric; k columns of it at a time, as many as the budget allows."""
        values = self.restriction.values
        total = values.new_zeros(self.size, self.size)
        activations = 4 * activation_bytes(self.objective, first_sample(self.objective, self.source))
        for samples in self.batches():
            sizes = len(samples) * activations + 4 * self.objective.space.d * values.dtype.itemsize
            columns = samples_per_chunk(sizes, self.budget_bytes)
            with full_precision(), differentiable_attention():
                product = SampleMap(self._product(samples))
                for start in range(0, self.size, columns):
                    stop = min(start + columns, self.size)
                    unit = values.new_zeros(stop - start, self.size)
                    unit.diagonal(start).fill_(1)
                    # e_k -> H e_k, a column; as a row, since H is symmetric
                    total[start:stop] += product(unit)
        return (total + total.T) / (2 * len(self.source))

    def system(self) -> System:
        """Cholesky up to DENSE_COLUMNS parameters, conjugate gradients beyond."""
        itemsize = self.objective.dtype.itemsize
        if self.size <= DENSE_COLUMNS and 3 * self.size**2 * itemsize <= DIRECT_BYTES:
            return DenseSystem(self.dense())
        return ProductSystem(self.matvec, self.mean_diagonal)

    def _product(self, samples: Samples) -> Callable[[Tensor], Tensor]:
        """v -> (sum of the batch's Hessians) v. One graph of the gradient serves any number of products."""

        def total(at: Tensor) -> Tensor:
            return self.objective.loss(self.restriction.outputs(at, samples.inputs), samples.labels).sum()

        # v -> H v. Symmetric, so the derivative of the gradient may be applied from either side: reverse over reverse.
        pull_back = vjp(grad(total), self.restriction.values)[1]
        return lambda vector: pull_back(vector)[0]
