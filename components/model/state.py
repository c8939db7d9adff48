"""A trained model as tensors: its weights, and the buffers that training may move.

Axes: n samples, d trained parameters.

The weights alone are no model where batch normalisation is trained: its running statistics move with them. What lies
outside the scope of training is in neither, and stays bit for bit what it is in the objective's module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oubli.components.errors import ConfigurationError
from oubli.components.model.chunking import pass_chunk
from oubli.components.model.objective import Objective
from oubli.components.model.samples import SampleSource
from oubli.components.model.scope import Scope


@dataclass(frozen=True)
class ModelState:
    """The trained part of a model.

    Attributes:
        theta: (d,) the trained parameters.
        buffers: By qualified name, those that the scope of training includes (`moving_buffers`).
    """

    theta: Tensor
    buffers: Mapping[str, Tensor]

    @classmethod
    def of(cls, objective: Objective, theta: Tensor | None = None) -> ModelState:
        """A copy of `objective`'s buffers beside `theta` (d,), or beside the weights that its module came with."""
        weights = objective.theta() if theta is None else theta.detach().clone()
        return cls(weights, buffers_of(objective))

    def within(self, objective: Objective) -> Objective:
        """A copy of `objective` whose module holds these weights and buffers.

        Raises:
            ConfigurationError: A name or a shape is not the module's.
        """
        copied = dataclasses.replace(objective)
        objective.space.write(self.theta, copied.module)
        write_buffers(copied.module, self.buffers)
        return copied


def moving_buffers(objective: Objective) -> tuple[str, ...]:
    """Names of the buffers that training moves: all, or those in modules that the objective's `trained` names."""
    frozen: frozenset[str] = frozenset()
    if objective.trained is not None:
        frozen = frozenset(Scope.of(objective.module, objective.trained).frozen)
    stored = objective.module.state_dict()
    return tuple(name for name, _ in objective.module.named_buffers() if name in stored and name not in frozen)


def buffers_of(objective: Objective) -> dict[str, Tensor]:
    """Copies of the buffers that training moves, by name."""
    own = dict(objective.module.named_buffers())
    return {name: own[name].detach().clone() for name in moving_buffers(objective)}


def write_buffers(module: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Copy `buffers` into the module's own.

    Raises:
        ConfigurationError: The module has no buffer of that name and shape.
    """
    own = dict(module.named_buffers())
    for name, value in buffers.items():
        if name not in own or own[name].shape != value.shape:
            raise ConfigurationError(
                f"{type(module).__name__} has no buffer {name!r} of shape {tuple(value.shape)}.",
                remedy="Pass the state of a model of the same architecture.",
            )
        own[name].copy_(value)


def output_table(objective: Objective, theta: Tensor, source: SampleSource) -> Tensor:
    """The model's outputs, in evaluation mode, on every sample of a source.

    Args:
        theta: (d,) weights.
        source: n samples, at least one.

    Returns:
        (n, ...) in the objective's dtype, on the CPU, in the source's order.
    """
    parameters = objective.space.unflatten(theta)
    with torch.no_grad():
        return torch.cat(
            [
                objective.outputs(parameters, objective.prepare(batch).inputs).cpu()
                for batch in source.batches(pass_chunk(objective, source))
            ]
        )


@contextmanager
def in_training_mode(objective: Objective) -> Iterator[Objective]:
    """A copy of `objective` whose module runs as in training, dropout on, while the body runs.

    Layers outside the scope of training run as in evaluation.
    """
    copied = dataclasses.replace(objective)
    copied.module.train()
    if objective.trained is None:
        yield copied
        return
    with Scope.of(copied.module, objective.trained).held(copied.module):
        yield copied


def with_moving_statistics(objective: Objective) -> Objective:
    """A copy of `objective` in which the trained batch normalisation uses, and follows, a batch's statistics.

    Everything else runs as in evaluation: dropout is off, and frozen layers stay as they are.
    """
    copied = dataclasses.replace(objective)
    moving = set(moving_buffers(objective))
    for path, layer in copied.module.named_modules():
        # The base of BatchNorm1d, 2d, 3d and SyncBatchNorm; one that keeps no statistics uses the batch's anyway.
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            prefix = f"{path}." if path else ""
            if any(f"{prefix}{name}" in moving for name, _ in layer.named_buffers(recurse=False)):
                layer.train()
    return copied
