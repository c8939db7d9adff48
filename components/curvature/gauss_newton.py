"""Generalised Gauss-Newton matrix of the mean loss.

Axes: n samples, b samples of a chunk, C output elements of one sample, d_P parameters of the block.

    G = (1/n) * sum_i J_i^T B_i J_i
    J_i = d outputs_i / d w_P  (C, d_P),    B_i = Hessian of loss_i in outputs_i  (C, C)

(Schraudolph, *Fast curvature matrix-vector products for second-order gradient descent*, Neural Computation 2002.)
G equals the Hessian where the outputs are linear in the parameters, and is positive semi-definite where the loss is
convex in the outputs. For a loss that is not, G may be indefinite; whoever solves with it must notice.

The L2 term and any damping are not in G: they are multiples of the identity that a solver adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jacrev, vjp

from oubli.components.curvature.base import FactoredCurvature
from oubli.components.curvature.linear_head import LinearHead, find_linear_head
from oubli.components.curvature.output_roots import root_rows
from oubli.components.curvature.probes import TRACE_PROBES, random_signs
from oubli.components.curvature.samplewise import SampleMap, loss_hessians
from oubli.components.model.attention import differentiable_attention
from oubli.components.model.chunking import activation_bytes, first_sample, samples_per_chunk
from oubli.components.model.samples import Samples
from oubli.components.solvers import full_precision


@dataclass(frozen=True)
class GaussNewton(FactoredCurvature):
    """G over `source`, at the weights and on the block of `restriction`. No result is kept."""

    def rank_bound(self) -> int:
        """n * C: the number of rows of `factor`, which the rank of G cannot exceed."""
        inputs = first_sample(self.objective, self.source)
        with torch.no_grad():
            return len(self.source) * self.restriction.outputs(self.restriction.values, inputs).numel()

    def matvec(self, vector: Tensor) -> Tensor:
        """G v: one pass over the source, no matrix built.

        Args:
            vector: v (d_P,).

        Returns:
            (d_P,).
        """
        total = torch.zeros_like(vector)
        for samples in self.batches():
            with full_precision(), differentiable_attention():
                # v -> J v, B J v
                _, weighted, pull_back = self._products(samples, vector)
                # B J v -> J^T B J v
                total += pull_back(weighted)
        return total / len(self.source)

    def mean_diagonal(self) -> float:
        """trace(G) / d_P, estimated with random signs (Hutchinson 1990).

        The signs come from a fixed seed: the same block gives the same estimate.
        """
        probes = random_signs(TRACE_PROBES, self.restriction.values)
        total = 0.0
        for samples in self.batches():
            with full_precision(), differentiable_attention():
                for probe in probes:
                    tangent, weighted, _ = self._products(samples, probe)
                    # (J v)^T B J v = v^T G v
                    total += float((tangent * weighted).sum())
        return total / (TRACE_PROBES * len(self.source) * self.size)

    def dense(self) -> Tensor:
        """G as a (d_P, d_P) matrix, symmetric."""
        head = self._head()
        if head is not None:
            total = head.dense(self.objective, self.restriction.theta, self.source, self.budget_bytes)
            return total / len(self.source)
        total = self.restriction.values.new_zeros(self.size, self.size)
        for jacobian, inner in self._jacobians():
            with full_precision():
                # B J (b * C, d_P)
                left = torch.bmm(inner, jacobian).flatten(0, 1)
                # J^T B J, summed over the chunk
                total.addmm_(jacobian.flatten(0, 1).T, left)
        # Rounding leaves it slightly asymmetric; Cholesky reads one triangle only.
        return (total + total.T) / (2 * len(self.source))

    def dense_flops(self) -> float:
        """As `FactoredCurvature.dense_flops`; a linear head's is a 2C-th of the general way's."""
        head = self._head()
        if head is None:
            return super().dense_flops()
        return float(len(self.source) * head.outputs * (head.outputs + 1) * head.features**2)

    def factor(self) -> Tensor:
        """A (n * C, d_P) with A^T A = G.

        Raises:
            IndefiniteCurvature: Some B_i has a negative eigenvalue: no real A exists.
            NonFiniteInput: Some B_i is not finite.
        """
        rows = []
        for jacobian, inner in self._jacobians():
            # R with R^T R = B
            roots = root_rows(inner)
            with full_precision():
                # R J
                rows.append(torch.bmm(roots, jacobian).flatten(0, 1))
        return torch.cat(rows) / math.sqrt(len(self.source))

    def _head(self) -> LinearHead | None:
        """The model's trained part as one linear layer at its end, where it is that and the block is all of it."""
        if self.size < self.objective.space.d:
            return None
        return find_linear_head(self.objective, first_sample(self.objective, self.source))

    def _products(self, samples: Samples, vector: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """J v and B J v for a batch, both in the outputs' shape (b, ...), and the product u -> J^T u.

        J v is the derivative of u -> J^T u, which is linear: reverse mode twice serves every layer whose backward
        pass can be differentiated, while forward mode needs rules that more layers lack.
        """

        def outputs_at(values: Tensor) -> Tensor:
            return self.restriction.outputs(values, samples.inputs)

        # u -> J^T u
        outputs, pull_back = vjp(outputs_at, self.restriction.values)[:2]
        # v -> J v
        push_forward = vjp(lambda weights: pull_back(weights)[0], torch.zeros_like(outputs))[1]
        tangent = push_forward(vector)[0].detach()

        def total(at: Tensor) -> Tensor:
            return self.objective.loss(at, samples.labels).sum()

        # J v -> B J v. Samples do not meet in a sum of losses: one product with its Hessian is B_i for every i.
        weighted = grad(lambda at: (grad(total)(at) * tangent).sum())(outputs.detach())
        return tangent, weighted.detach(), lambda weights: pull_back(weights)[0].detach()

    def _jacobians(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of J (b, C, d_P) and B (b, C, C)."""
        values = self.restriction.values
        first = first_sample(self.objective, self.source)
        shape = self.restriction.outputs(values, first).shape[1:]
        elements = shape.numel()

        def output(at: Tensor, inputs: Tensor) -> Tensor:
            return self.restriction.outputs(at, inputs[None]).reshape(elements)

        # Per sample: J, the product B J, the touched tensors' own J before the block is taken, and C times
        # the gradients of the activations.
        row_bytes = (2 * self.size + self.restriction.touched_size) * values.dtype.itemsize
        sample_bytes = elements * (row_bytes + 2 * activation_bytes(self.objective, first))
        # A chunk of one: without vmap over the rows, for layers that have no rule for it.
        jacobian_of = SampleMap(
            lambda inputs: jacrev(output)(values, inputs), lambda inputs: jacrev(output, chunk_size=1)(values, inputs)
        )
        inner_of = loss_hessians(self.objective, shape)
        for batch in self.source.batches(samples_per_chunk(sample_bytes, self.budget_bytes)):
            samples = self.objective.prepare(batch)
            with full_precision(), differentiable_attention():
                with torch.no_grad():
                    at = self.restriction.outputs(values, samples.inputs).reshape(len(samples), elements)
                jacobian = jacobian_of(samples.inputs)
            yield jacobian, inner_of(at, samples.labels)
