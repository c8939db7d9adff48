"""Fisher matrices: one outer product per sample.

Axes: n samples, b samples of a chunk, d_P parameters of the block.

    F = (1/n) * sum_i r_i r_i^T,    r_i = J_i^T u_i,    J_i = d outputs_i / d w_P

`EmpiricalFisher`: u_i is the gradient of the loss in the outputs, so r_i is the sample's own gradient. It equals no
Hessian in general, and vanishes where every sample is fitted (Kunstner, Hennig, Balles, *Limitations of the empirical
Fisher approximation*, NeurIPS 2019). `SampledFisher`: the label is drawn from the model's prediction instead, which
makes F an unbiased estimate of the generalised Gauss-Newton matrix with one row per sample in place of one per output.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vjp

from oubli.components.curvature.base import FactoredCurvature
from oubli.components.curvature.draws import sample_keys
from oubli.components.curvature.output_roots import sampled_root
from oubli.components.curvature.samplewise import SampleMap
from oubli.components.model.attention import differentiable_attention
from oubli.components.model.chunking import activation_bytes, first_sample, samples_per_chunk
from oubli.components.model.samples import Samples
from oubli.components.solvers import full_precision


@dataclass(frozen=True)
class RowPerSample(FactoredCurvature, ABC):
    """F over `source`, at the weights and on the block of `restriction`, for the u_i that a subclass chooses.

    No result is kept.
    """

    @abstractmethod
    def cotangents(self, outputs: Tensor, samples: Samples) -> Tensor:
        """The u_i that make a sample's row.

        Args:
            outputs: (b, ...) of the model, detached.
            samples: The b prepared samples that they are of.

        Returns:
            (b, ...), in the shape of the outputs.
        """

    def rank_bound(self) -> int:
        """n, the number of rows of `factor`."""
        return len(self.source)

    def matvec(self, vector: Tensor) -> Tensor:
        """F v: one pass over the source, no matrix built.

        Args:
            vector: v (d_P,).

        Returns:
            (d_P,).
        """
        total = torch.zeros_like(vector)
        for samples in self.batches():
            with full_precision(), differentiable_attention():
                # v -> r_i . v
                along, cotangent, pull_back = self._along(samples, vector)
                # r_i . v -> sum_i (r_i . v) r_i. Samples do not meet in the outputs: one pull-back serves them all.
                total += pull_back(cotangent * along.reshape(-1, *(1,) * (cotangent.ndim - 1)))
        return total / len(self.source)

    def mean_diagonal(self) -> float:
        """trace(F) / d_P, exact: the mean square of the rows' elements."""
        return sum(float(rows.square().sum()) for rows in self._rows()) / (len(self.source) * self.size)

    def dense(self) -> Tensor:
        """F as a (d_P, d_P) matrix."""
        total = self.restriction.values.new_zeros(self.size, self.size)
        for rows in self._rows():
            with full_precision():
                total.addmm_(rows.T, rows)
        return total / len(self.source)

    def factor(self) -> Tensor:
        """A (n, d_P) with A^T A = F."""
        return torch.cat(list(self._rows())) / math.sqrt(len(self.source))

    def _along(self, samples: Samples, vector: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """r_i . v (b,), u (b, ...), and the product w -> J^T w, of a batch."""
        # w -> J^T w
        outputs, pull_back = vjp(lambda at: self.restriction.outputs(at, samples.inputs), self.restriction.values)[:2]
        cotangent = self.cotangents(outputs.detach(), samples)
        # v -> J v
        push_forward = vjp(lambda weights: pull_back(weights)[0], torch.zeros_like(outputs))[1]
        tangent = push_forward(vector)[0].detach()
        # J v -> u . J v = r . v
        return (
            (tangent * cotangent).reshape(len(samples), -1).sum(1),
            cotangent,
            lambda weights: pull_back(weights)[0].detach(),
        )

    def _rows(self) -> Iterator[Tensor]:
        """Chunks (b, d_P) of the rows r."""
        values = self.restriction.values

        def projected(at: Tensor, inputs: Tensor, cotangent: Tensor) -> Tensor:
            return (self.restriction.outputs(at, inputs[None])[0] * cotangent).sum()

        rows_of = SampleMap(lambda inputs, cotangent: grad(projected)(values, inputs, cotangent))
        row_bytes = (self.size + 2 * self.restriction.touched_size) * values.dtype.itemsize
        activations = activation_bytes(self.objective, first_sample(self.objective, self.source))
        for batch in self.source.batches(samples_per_chunk(row_bytes + 3 * activations, self.budget_bytes)):
            with full_precision(), differentiable_attention():
                samples = self.objective.prepare(batch)
                with torch.no_grad():
                    outputs = self.restriction.outputs(values, samples.inputs)
                rows = rows_of(samples.inputs, self.cotangents(outputs, samples))
            yield rows


@dataclass(frozen=True)
class EmpiricalFisher(RowPerSample):
    """F of the samples' own gradients."""

    def cotangents(self, outputs: Tensor, samples: Samples) -> Tensor:
        """The loss's gradient in the outputs."""

        def total(at: Tensor) -> Tensor:
            return self.objective.loss(at, samples.labels).sum()

        gradient: Tensor = grad(total)(outputs)
        return gradient.detach()


@dataclass(frozen=True)
class SampledFisher(RowPerSample):
    """F of gradients for drawn labels.

    Attributes:
        seed: Of the draws, which follow from it and from each sample's input (draws.py).
    """

    seed: int = 0

    def cotangents(self, outputs: Tensor, samples: Samples) -> Tensor:
        """The loss's gradient in the outputs for a drawn label, scaled so that E[u u^T] is the loss's Hessian.

        Raises:
            ConfigurationError: The loss is not one of `losses.Loss`.
        """
        return sampled_root(self.objective, outputs, samples.labels, sample_keys(samples.inputs, self.seed))
