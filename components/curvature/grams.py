"""Second moments of a linear head's features, weighted by the loss's curvature in the outputs, in float32.

Axes: n samples, b samples of a chunk, C outputs, I features (and the bias's one).

The Hessian of a linear head is a mean over the samples of B_i (x) a_i a_i^T. For cross-entropy, with probabilities p,

    B = diag(p) - p p^T = sum_{c < k} p_c p_k (e_c - e_k)(e_c - e_k)^T,

so a pair of outputs needs only the samples that waver between the two, and leaving out the others leaves a matrix that
is positive semi-definite. Each sum is a symmetric product, half the work of a general one.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from scipy.linalg.blas import ssyrk
from torch import Tensor

from oubli.components.curvature.linear_head import LinearHead
from oubli.components.model.losses import Loss
from oubli.components.model.objective import Objective
from oubli.components.model.samples import SampleSource
from oubli.components.solvers import full_precision

CUT = 1e-6
"""Samples with less of a weight than this are left out of its sum: they move no eigenvalue by more than that share of
the features' largest."""

ROWS = 4
"""Samples for an output's second moments, for each feature: their eigenvalues are then right to about a half."""

_CHUNK = 4096

_GENERAL_CHUNK = 256
"""Samples whose (C, C) matrices are held at once."""


def dense_gram(objective: Objective, theta: Tensor, source: SampleSource, head: LinearHead) -> Tensor:
    """The mean loss's Gauss-Newton matrix.

    Args:
        objective: F.
        theta: (d,) weights.
        source: The n samples.
        head: Of the objective.

    Returns:
        (d, d) float32, symmetric, in the order of theta.
    """
    outputs, width = head.outputs, head.features
    if objective.kind is not Loss.CROSS_ENTROPY:
        return (head.dense(objective, theta, source, 2**28) / len(source)).to(torch.float32)
    pairs = [(row, column) for row in range(outputs) for column in range(row)]
    sums = [_Gram(width, theta) for _ in pairs]
    for features, probabilities in _softmax_chunks(objective, theta, source, head):
        for (row, column), total in zip(pairs, sums, strict=True):
            total.add(features, probabilities[:, row] * probabilities[:, column])
    order = head.order(theta.device)
    matrix = theta.new_zeros((outputs * width, outputs * width), dtype=torch.float32)
    for (row, column), total in zip(pairs, sums, strict=True):
        block = total.symmetric() / len(source)
        for first, second, sign in ((row, row, 1), (column, column, 1), (row, column, -1), (column, row, -1)):
            at = slice(first * width, (first + 1) * width), slice(second * width, (second + 1) * width)
            matrix[at] += sign * block
    return matrix[order[:, None], order] if head.bias else matrix


def output_grams(objective: Objective, theta: Tensor, source: SampleSource, head: LinearHead) -> Tensor:
    """The blocks on the diagonal of that matrix, one for each output, from ROWS * I samples of each.

    A sample is drawn for an output with a probability in proportion to its weight there, or taken where that is 1, and
    counts for as many as it was drawn from.

    Returns:
        (C, I, I) float32, symmetric; the bias's one is the last feature.
    """
    totals = sum(weights.sum(0) for _, weights in _output_chunks(objective, theta, source, head))
    sums = [_Gram(head.features, theta) for _ in range(head.outputs)]
    # Fixed, as the factor decides no result.
    generator = torch.Generator().manual_seed(0)
    for features, weights in _output_chunks(objective, theta, source, head):
        chances = (weights * (ROWS * head.features / totals)).clamp(max=1)
        drawn = torch.rand(weights.shape, generator=generator).to(chances) < chances
        counted = torch.where(drawn, weights / chances, 0.0)
        for output, total in enumerate(sums):
            total.add(features, counted[:, output])
    return torch.stack([total.symmetric() for total in sums]) / len(source)


def kronecker_grams(
    objective: Objective, theta: Tensor, source: SampleSource, head: LinearHead
) -> tuple[Tensor, Tensor]:
    """Two factors whose Kronecker product is near that matrix, each exact where the other's part is the same for all.

    Returns:
        The mean B (C, C), and the mean a a^T (I, I), each sample weighted by the trace of its B; float32, symmetric.
    """
    inner = theta.new_zeros((head.outputs, head.outputs), dtype=torch.float32)
    outer, weight = _Gram(head.features, theta), 0.0
    for features, traces, curvature in _curvature_chunks(objective, theta, source, head):
        inner += curvature
        outer.add(features, traces)
        weight += float(traces.sum())
    return inner / len(source), outer.symmetric() / max(weight, torch.finfo(torch.float32).tiny)


class _Gram:
    """sum_i w_i a_i a_i^T, for w_i that are not negative."""

    def __init__(self, width: int, like: Tensor) -> None:
        # On a CPU only one triangle is filled.
        self._total = torch.zeros(width, width, dtype=torch.float32, device=like.device)

    def add(self, features: Tensor, weights: Tensor) -> None:
        """Another chunk; features (b, I) and weights (b,), float32."""
        chosen = (weights > CUT).nonzero()[:, 0]
        if len(chosen) == 0:
            return
        rows = features[chosen] * weights[chosen, None].sqrt()
        if rows.device.type != "cpu":
            with full_precision():
                self._total.addmm_(rows.T, rows)
            return
        # torch has no product that knows its result to be symmetric.
        ssyrk(1.0, rows.numpy().T, beta=1.0, c=self._total.numpy().T, overwrite_c=1, lower=1)

    def symmetric(self) -> Tensor:
        """(I, I)."""
        if self._total.device.type != "cpu":
            return self._total
        upper = self._total.triu(1)
        return self._total.diagonal().diag() + upper + upper.T


def _softmax_chunks(
    objective: Objective, theta: Tensor, source: SampleSource, head: LinearHead
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features (b, I) and probabilities (b, C), float32."""
    for features, outputs, _ in head.passed(objective, theta, source, _CHUNK):
        yield features.to(torch.float32), torch.softmax(outputs, 1).to(torch.float32)


def _output_chunks(
    objective: Objective, theta: Tensor, source: SampleSource, head: LinearHead
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features (b, I), and the diagonals of B (b, C), float32."""
    if objective.kind is Loss.CROSS_ENTROPY:
        for features, chances in _softmax_chunks(objective, theta, source, head):
            yield features, chances * (1 - chances)
        return
    for features, inner in head.curvatures(objective, theta, source, _GENERAL_CHUNK):
        yield features.to(torch.float32), inner.diagonal(dim1=1, dim2=2).to(torch.float32)


def _curvature_chunks(
    objective: Objective, theta: Tensor, source: SampleSource, head: LinearHead
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Features (b, I), the traces of B (b,), and the sum of B (C, C), float32."""
    if objective.kind is Loss.CROSS_ENTROPY:
        for features, chances in _softmax_chunks(objective, theta, source, head):
            yield features, (chances * (1 - chances)).sum(1), chances.sum(0).diag() - chances.T @ chances
        return
    for features, inner in head.curvatures(objective, theta, source, _GENERAL_CHUNK):
        traces = inner.diagonal(dim1=1, dim2=2).sum(1)
        yield features.to(torch.float32), traces.to(torch.float32), inner.sum(0).to(torch.float32)
