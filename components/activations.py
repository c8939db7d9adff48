"""What each slice does, and what the loss says, while one input is perturbed.

Axes: N perturbed copies, b copies of a chunk, p slices, C output units of one layer, T positions.

One forward pass over all copies (in chunks that fit in memory), with hooks on the sliced layers. A convolution's
activation is its output averaged over positions; a linear layer's is averaged over any axes between batch and feature.
A layer that is called several times contributes the mean of its calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from oubli.components.chunking import MEMORY_BUDGET_BYTES, activation_bytes, samples_per_chunk
from oubli.components.objective import Objective
from oubli.components.samples import Samples
from oubli.components.slices import SliceMap


@dataclass(frozen=True)
class ActivationRecord:
    """activations (N, p) and losses (N,), both float64, columns in the order of `SliceMap.slices`."""

    activations: NDArray[np.float64]
    losses: NDArray[np.float64]


def recordable(objective: Objective, theta: Tensor, slices: SliceMap, inputs: Tensor) -> SliceMap:
    """The layers whose activation can be told apart by sample.

    inputs: (1, ...), prepared. A layer is left out when the forward pass never calls it as a module (the output
    projection inside attention), or when its output's first axis is not the batch (tokens folded into it).
    """
    pair = torch.cat([inputs, inputs])
    shapes: dict[str, list[bool]] = {layer.module: [] for layer in slices.layers}

    def look(name: str, layer: nn.Module, output: Tensor) -> None:
        axes = 3 if isinstance(layer, nn.Conv1d) else 4 if isinstance(layer, nn.Conv2d) else 5
        enough = output.ndim >= 2 if isinstance(layer, nn.Linear) else output.ndim == axes
        shapes[name].append(enough and len(output) == len(pair))

    with _watching(objective.module, slices, look), torch.no_grad():
        objective.outputs(objective.space.unflatten(theta), pair)
    return slices.only(name for name, calls in shapes.items() if calls and all(calls))


def record_activations(
    objective: Objective,
    theta: Tensor,
    slices: SliceMap,
    copies: Samples,
    *,
    budget_bytes: int = MEMORY_BUDGET_BYTES,
) -> ActivationRecord:
    """The record of N copies in one batched pass; `slices` must be recordable."""
    prepared = objective.prepare(copies)
    calls: dict[str, list[Tensor]] = {layer.module: [] for layer in slices.layers}
    parameters = objective.space.unflatten(theta)
    activations, losses = [], []

    def keep(name: str, layer: nn.Module, output: Tensor) -> None:
        features_last = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
        calls[name].append(features_last.flatten(1, -2).mean(1) if output.ndim > 2 else features_last)

    chunk = samples_per_chunk(activation_bytes(objective, prepared.inputs[:1]), budget_bytes)
    with _watching(objective.module, slices, keep), torch.no_grad():
        for batch in prepared.batches(chunk):
            for seen in calls.values():
                seen.clear()
            outputs = objective.outputs(parameters, batch.inputs)
            losses.append(objective.loss(outputs, batch.labels))
            activations.append(torch.cat([torch.stack(seen).mean(0) for seen in calls.values()], dim=1))
    return ActivationRecord(
        torch.cat(activations).to("cpu", torch.float64).numpy(),
        torch.cat(losses).to("cpu", torch.float64).numpy(),
    )


@contextmanager
def _watching(module: nn.Module, slices: SliceMap, see: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Calls `see(name, layer, output)` at each call of a sliced layer; the hooks go whatever happens."""
    hooks: list[RemovableHandle] = []

    def hook_for(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda layer, _arguments, output: see(name, layer, output)

    try:
        hooks.extend(
            module.get_submodule(name).register_forward_hook(hook_for(name))
            for name in (layer.module for layer in slices.layers)
        )
        yield
    finally:
        for hook in hooks:
            hook.remove()
