"""Gradients of the loss: per sample, and summed over a source.

Axes: m or n samples, b samples of a chunk, d parameters.

No gradient here contains the L2 term: it belongs to the objective, not to a sample, and callers add it with the
weight that their formula gives it.

Per-sample gradients are batched by `torch.func.vmap` where it can run the model. It cannot run recurrent cells, control
flow that depends on the data, and writing into tensors that the model makes itself: then each sample has a backward
pass of its own, which gives the same rows, more slowly. `per_sample_way` tells which.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from torch.func import grad, vmap

from oubli.components.errors import ConfigurationError
from oubli.components.model.attention import differentiable_attention
from oubli.components.model.chunking import (
    MEMORY_BUDGET_BYTES,
    activation_bytes,
    first_sample,
    pass_chunk,
    samples_per_chunk,
)
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples, SampleSource

_log = logging.getLogger(__name__)


class PerSampleWay(StrEnum):
    """How per-sample gradients are taken."""

    VMAP = "vmap"
    """Many samples at once."""

    ONE_BY_ONE = "one_by_one"
    """A backward pass for each sample."""


@dataclass(frozen=True)
class RemovedGradient:
    """What an update needs of the removed samples.

    Attributes:
        total: (d,) sum of their loss gradients.
        count: m.
    """

    total: Tensor
    count: int

    @classmethod
    def of(cls, objective: Objective, theta: Tensor, removed: SampleSource) -> RemovedGradient:
        """Of the removed samples at theta (d,)."""
        return cls(gradient_sum(objective, theta, removed), len(removed))

    def pull(self, objective: Objective, theta: Tensor) -> Tensor:
        """(d,) sum over the removed samples of their gradients, each with its share of the regulariser's."""
        return self.total + self.count * objective.l2 * theta


def per_sample_way(objective: Objective, theta: Tensor, source: SampleSource) -> PerSampleWay:
    """VMAP where it can run the model on the source's first sample, ONE_BY_ONE where it raises.

    Args:
        objective: The model and its loss.
        theta: (d,) weights.
        source: Read no further than its first sample.

    Raises:
        ConfigurationError: The source is empty, or the model draws random numbers in evaluation mode.
    """
    first_sample(objective, source)  # refuses an empty source
    samples = objective.prepare(next(iter(source.batches(1))))
    # Two, since some operations fail under vmap only where there is something to map over.
    pair = Samples(torch.cat([samples.inputs] * 2), torch.cat([samples.labels] * 2))
    try:
        _mapped(objective, theta, pair)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        # torch has no type of its own for what vmap cannot do. Whatever else was wrong with the model or the sample
        # is wrong one by one, too, and is raised there.
        if "randomness" in str(error):
            raise ConfigurationError(
                f"{type(objective.module).__name__} draws random numbers in evaluation mode.",
                remedy="Pass training=self.training to functional.dropout, or use nn.Dropout.",
            ) from error
        _log.info("One sample at a time, which is slower: %s", str(error).partition("\n")[0])
        return PerSampleWay.ONE_BY_ONE
    return PerSampleWay.VMAP


def per_sample_gradients(
    objective: Objective,
    theta: Tensor,
    source: SampleSource,
    *,
    budget_bytes: int = MEMORY_BUDGET_BYTES,
    way: PerSampleWay | None = None,
) -> Iterator[Tensor]:
    """Per-sample loss gradients, in the source's order.

    Args:
        objective: The model and its loss.
        theta: (d,) weights.
        source: The samples.
        budget_bytes: What one chunk's temporaries may take.
        way: None has `per_sample_way` decide, once.

    Returns:
        Chunks (b, d), as large as the budget allows.

    Raises:
        ConfigurationError: As for `per_sample_way`.
    """
    # A sample costs its gradient row, a working copy of it, and its activations with their gradients.
    row_bytes = objective.space.d * objective.dtype.itemsize
    activations = activation_bytes(objective, first_sample(objective, source))
    chunk = samples_per_chunk(2 * row_bytes + 3 * activations, budget_bytes)
    chosen = per_sample_way(objective, theta, source) if way is None else way
    rows = _mapped if chosen is PerSampleWay.VMAP else _one_by_one
    for batch in source.batches(chunk):
        yield rows(objective, theta, objective.prepare(batch))


def gradient_sum(
    objective: Objective, theta: Tensor, source: SampleSource, *, budget_bytes: int = MEMORY_BUDGET_BYTES
) -> Tensor:
    """Sum of the loss gradients, by ordinary batched backward passes.

    Args:
        objective: The model and its loss.
        theta: (d,) weights.
        source: The samples.
        budget_bytes: What one chunk's temporaries may take.

    Returns:
        (d,).

    Raises:
        ConfigurationError: The source is empty.
    """
    gradient = torch.zeros_like(theta)
    for batch in source.batches(pass_chunk(objective, source, budget_bytes)):
        gradient += _summed(objective, theta, objective.prepare(batch))
    return gradient


def objective_gradient(objective: Objective, theta: Tensor, source: SampleSource) -> Tensor:
    """grad F(theta) over a source, L2 term included.

    Args:
        objective: F.
        theta: (d,) weights.
        source: The samples.

    Returns:
        (d,).

    Raises:
        ConfigurationError: The source is empty.
    """
    return gradient_sum(objective, theta, source) / len(source) + objective.l2 * theta


def _mapped(objective: Objective, theta: Tensor, samples: Samples) -> Tensor:
    """Rows (b, d) for prepared samples, by `vmap` over `grad`."""

    def single(weights: Tensor, inputs: Tensor, label: Tensor) -> Tensor:
        return objective.losses(weights, Samples(inputs[None], label[None]))[0]

    with differentiable_attention():
        rows: Tensor = vmap(grad(single), in_dims=(None, 0, 0))(theta, samples.inputs, samples.labels)
    return rows.detach()


def _one_by_one(objective: Objective, theta: Tensor, samples: Samples) -> Tensor:
    """Rows (b, d) for prepared samples, one backward pass each."""
    return torch.stack([_summed(objective, theta, sample) for sample in samples.batches(1)])


def _summed(objective: Objective, theta: Tensor, samples: Samples) -> Tensor:
    """The sum (d,) of the loss gradients of prepared samples."""
    # Not `torch.func.grad`, which refuses models that look at their numbers or write into tensors of their own.
    weights = theta.detach().requires_grad_(True)
    with differentiable_attention(), torch.enable_grad():
        total = objective.losses(weights, samples).sum()
        if not total.requires_grad:
            return torch.zeros_like(theta)  # no trained parameter takes part
        return torch.autograd.grad(total, weights)[0]
