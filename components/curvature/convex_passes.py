"""Passes over the samples of a convex objective, fast: its gradient, and products with its Hessian.

Axes: n samples, b samples of a chunk, C outputs, I inputs of the last layer, d trained parameters.

Where the trained part is one linear layer, both are two matrix products a chunk, on features that are computed once.
A gradient, which says how near the minimiser is, is computed in float64; a product, which only has to lead there, in
float32. A chunk stays in the processor's cache between its two products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.linear_head import LinearHead, find_linear_head
from oubli.components.model.chunking import first_sample
from oubli.components.model.gradients import objective_gradient
from oubli.components.model.losses import Loss
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples, SampleSource
from oubli.components.solvers import full_precision

_CHUNK_BYTES = 4 * 2**20
"""Float64 features of a chunk."""


class ConvexPasses(Protocol):
    """Passes over n samples; the L2 term is in both results."""

    def gradient(self, theta: Tensor) -> Tensor:
        """grad F at weights (d,): (d,), float64 for a linear head."""
        ...

    def product(self, vector: Tensor) -> Tensor:
        """H v for v (d,), with the Hessian at the weights of the last gradient."""
        ...


def convex_passes(objective: Objective, source: SampleSource) -> ConvexPasses:
    """By the features of a linear head where the samples are in memory, else by general passes over the source.

    Args:
        objective: F, its outputs linear in the trained parameters.
        source: The n samples.

    Raises:
        ConfigurationError: There are none.
    """
    head = find_linear_head(objective, first_sample(objective, source))
    if head is None or not isinstance(source, Samples):
        return _GeneralPasses(objective, source)
    return _head_passes(objective, head, source)


@dataclass
class _GeneralPasses:
    """For any model whose outputs are linear in its parameters: there the Gauss-Newton matrix is the Hessian."""

    objective: Objective
    source: SampleSource
    _at: Tensor | None = None

    def gradient(self, theta: Tensor) -> Tensor:
        self._at = theta
        return objective_gradient(self.objective, theta, self.source)

    def product(self, vector: Tensor) -> Tensor:
        at = self.objective.theta() if self._at is None else self._at
        curvature = GaussNewton(Restriction(self.objective, at, None), self.source)
        return curvature.matvec(vector) + self.objective.l2 * vector


def _head_passes(objective: Objective, head: LinearHead, samples: Samples) -> _HeadPasses:
    samples = Samples(samples.inputs.to(objective.device), samples.labels.to(objective.device))
    first = next(iter(samples.batches(1)))
    seen = next(head.passed(objective, objective.theta(), first, 1))[0]
    width = seen.shape[1] - head.bias
    flat = samples.inputs.flatten(1)
    same = flat.shape[1] == width and torch.equal(flat[:1].to(seen), seen[:, :width])
    if same and samples.inputs.is_floating_point():
        # The layer is all there is: its features are the inputs themselves.
        return _HeadPasses(objective, head, flat, samples.labels)
    size = max(1, _CHUNK_BYTES // first.inputs.nbytes)
    parts = [part[0][:, :width] for part in head.passed(objective, objective.theta(), samples, size)]
    return _HeadPasses(objective, head, torch.cat(parts), samples.labels)


class _HeadPasses:
    """For a linear head. features (n, I), as precise as they are given."""

    def __init__(self, objective: Objective, head: LinearHead, features: Tensor, labels: Tensor) -> None:
        self._objective, self._head, self._features = objective, head, features
        # The loss may be of float targets.
        self._labels = labels.to(torch.float64) if labels.is_floating_point() else labels
        self._narrow = features.to(torch.float32)
        layer = objective.module.get_submodule(head.module)
        bias = dict(layer.named_parameters(recurse=False)).get("bias")
        self._fixed = bias.detach().to(torch.float64) if bias is not None and not head.bias else None
        softmax = objective.kind is Loss.CROSS_ENTROPY
        # At the weights of the last gradient: probabilities of cross-entropy, else outputs.
        self._at = features.new_zeros(len(labels), head.outputs, dtype=torch.float32 if softmax else torch.float64)

    @full_precision()
    def gradient(self, theta: Tensor) -> Tensor:
        wide = theta.to(torch.float64)
        weights, bias = self._split(wide)
        if self._fixed is not None:
            bias = self._fixed
        total, shared = torch.zeros_like(weights), torch.zeros_like(bias)
        for rows, features in self._wide_chunks():
            outputs = torch.addmm(bias, features, weights.T)
            errors = self._errors(rows, outputs)
            total.addmm_(errors.T, features)
            shared += errors.sum(0)
        return self._joined(total, shared) / len(self._labels) + self._objective.l2 * wide

    @full_precision()
    def product(self, vector: Tensor) -> Tensor:
        # float32 holds what is tiny in units of its own size.
        scale = float(vector.abs().max()) or 1.0
        weights, bias = self._split((vector / scale).to(torch.float32))
        total, shared = torch.zeros_like(weights), torch.zeros_like(bias)
        for rows in self._chunks():
            features = self._narrow[rows]
            curved = self._curved(rows, torch.addmm(bias, features, weights.T))
            total.addmm_(curved.T, features)
            shared += curved.sum(0)
        return self._joined(total, shared).to(vector) * (scale / len(self._labels)) + self._objective.l2 * vector

    def _errors(self, rows: slice, outputs: Tensor) -> Tensor:
        """The losses' gradients in the outputs (b, C), which are noted."""
        labels = self._labels[rows]
        if self._objective.kind is Loss.CROSS_ENTROPY:
            errors = torch.softmax(outputs, 1)
            self._at[rows] = errors
            errors[torch.arange(len(labels), device=labels.device), labels] -= 1
            return errors
        self._at[rows] = outputs
        return self._loss_gradient(outputs.requires_grad_(True), labels).detach()

    def _curved(self, rows: slice, tangents: Tensor) -> Tensor:
        """The loss's Hessian in the outputs times (b, C)."""
        at = self._at[rows]
        if self._objective.kind is Loss.CROSS_ENTROPY:
            curved = at * tangents
            return curved - at * curved.sum(1, keepdim=True)
        outputs = at.clone().requires_grad_(True)
        with torch.enable_grad():
            slopes = self._loss_gradient(outputs, self._labels[rows])
            if not slopes.requires_grad:
                return torch.zeros_like(tangents)
            (curved,) = torch.autograd.grad((slopes * tangents).sum(), outputs)
        return curved.to(tangents)

    def _loss_gradient(self, outputs: Tensor, labels: Tensor) -> Tensor:
        with torch.enable_grad():
            total = self._objective.loss(outputs, labels).sum()
            return torch.autograd.grad(total, outputs, create_graph=True)[0]

    def _chunks(self) -> Iterator[slice]:
        size = max(1, _CHUNK_BYTES // (self._features.shape[1] * 8))
        for start in range(0, len(self._labels), size):
            yield slice(start, min(start + size, len(self._labels)))

    def _wide_chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Chunks with their features in float64."""
        room: Tensor | None = None
        for rows in self._chunks():
            features = self._features[rows]
            if features.dtype is not torch.float64:
                # One room for all: fresh memory costs more than the conversion.
                room = features.to(torch.float64) if room is None else room
                features = room[: len(features)].copy_(features)
            yield rows, features

    def _split(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (C, I) and bias (C,) of a vector (d,); a bias of 0 where none is trained."""
        outputs, width = self._head.outputs, self._head.features - self._head.bias
        weights = vector[: outputs * width].reshape(outputs, width)
        return weights, vector[outputs * width :] if self._head.bias else vector.new_zeros(outputs)

    def _joined(self, weights: Tensor, bias: Tensor) -> Tensor:
        """(d,) of what belongs to weights (C, I) and bias (C,)."""
        return torch.cat([weights.reshape(-1), bias]) if self._head.bias else weights.reshape(-1)
