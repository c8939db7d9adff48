"""Gradients of the loss: per sample, and summed over a source.

Axes: m or n samples, b samples of a chunk, d parameters.

No gradient here contains the L2 term: it belongs to the objective, not to a sample, and callers add it with the
weight that their formula gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, vmap

from oubli.components.chunking import (
    MEMORY_BUDGET_BYTES,
    activation_bytes,
    first_sample,
    pass_chunk,
    samples_per_chunk,
)
from oubli.components.objective import Objective
from oubli.components.samples import Samples, SampleSource


@dataclass(frozen=True)
class RemovedGradient:
    """What an update needs of the removed samples: total (d,), the sum of their loss gradients; count, m of them."""

    total: Tensor
    count: int

    @classmethod
    def of(cls, objective: Objective, theta: Tensor, removed: SampleSource) -> RemovedGradient:
        return cls(gradient_sum(objective, theta, removed), len(removed))


def per_sample_gradients(
    objective: Objective, theta: Tensor, source: SampleSource, *, budget_bytes: int = MEMORY_BUDGET_BYTES
) -> Iterator[Tensor]:
    """Chunks (b, d) of per-sample loss gradients, in the source's order.

    Batched by `torch.func.vmap` over `grad`; the chunk is as large as `budget_bytes` allows.
    """

    def single(weights: Tensor, inputs: Tensor, label: Tensor) -> Tensor:
        return objective.losses(weights, Samples(inputs[None], label[None]))[0]

    # A sample costs its gradient row, a working copy of it, and its activations with their gradients.
    row_bytes = objective.space.d * objective.dtype.itemsize
    activations = activation_bytes(objective, first_sample(objective, source))
    chunk = samples_per_chunk(2 * row_bytes + 3 * activations, budget_bytes)
    gradients = vmap(grad(single), in_dims=(None, 0, 0))
    for batch in source.batches(chunk):
        samples = objective.prepare(batch)
        yield gradients(theta, samples.inputs, samples.labels).detach()


def gradient_norms(
    objective: Objective, theta: Tensor, source: SampleSource, *, budget_bytes: int = MEMORY_BUDGET_BYTES
) -> Tensor:
    """Euclidean norms (n,) of the per-sample loss gradients."""
    chunks = per_sample_gradients(objective, theta, source, budget_bytes=budget_bytes)
    return torch.cat([torch.linalg.vector_norm(chunk, dim=1) for chunk in chunks])


def gradient_sum(
    objective: Objective, theta: Tensor, source: SampleSource, *, budget_bytes: int = MEMORY_BUDGET_BYTES
) -> Tensor:
    """Sum over the source of the loss gradients, (d,), by ordinary batched backward passes."""

    def total(weights: Tensor, samples: Samples) -> Tensor:
        return objective.losses(weights, samples).sum()

    gradient = torch.zeros_like(theta)
    for batch in source.batches(pass_chunk(objective, source, budget_bytes)):
        gradient += grad(total)(theta, objective.prepare(batch)).detach()
    return gradient


def objective_gradient(objective: Objective, theta: Tensor, source: SampleSource) -> Tensor:
    """grad F(theta) over the source, L2 term included, (d,)."""
    return gradient_sum(objective, theta, source) / len(source) + objective.l2 * theta
