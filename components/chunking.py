"""How many samples to take at once, from what one sample costs in memory.

Axes: b samples of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oubli.components.errors import ConfigurationError
from oubli.components.objective import Objective
from oubli.components.samples import SampleSource

MEMORY_BUDGET_BYTES = 256 * 2**20
"""What one chunk's temporaries may take: well inside any worker, and past the point where larger chunks run faster."""

LARGEST_CHUNK = 1024


def samples_per_chunk(bytes_per_sample: int, budget_bytes: int = MEMORY_BUDGET_BYTES) -> int:
    """The largest chunk within the budget, at least 1 and at most LARGEST_CHUNK."""
    return max(1, min(LARGEST_CHUNK, budget_bytes // max(1, bytes_per_sample)))


def activation_bytes(objective: Objective, inputs: Tensor) -> int:
    """Bytes that one sample's input and leaf-module outputs take in a forward pass.

    inputs: (1, ...), prepared. Measured, since it follows neither from the parameter count nor from the input.
    """
    elements = inputs.numel()

    def count(_module: nn.Module, _arguments: object, output: object) -> None:
        nonlocal elements
        if isinstance(output, Tensor):
            elements += output.numel()

    leaves = [module for module in objective.module.modules() if next(module.children(), None) is None]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    try:
        with torch.no_grad():
            objective.outputs({}, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return elements * objective.dtype.itemsize


def first_sample(objective: Objective, source: SampleSource) -> Tensor:
    """The first sample's prepared input, (1, ...); ConfigurationError for an empty source."""
    if len(source) == 0:
        raise ConfigurationError("The sample source is empty.", remedy="Pass at least one sample.")
    return objective.prepare(next(iter(source.batches(1)))).inputs


def pass_chunk(objective: Objective, source: SampleSource, budget_bytes: int = MEMORY_BUDGET_BYTES) -> int:
    """Chunk size for a pass over a source whose gradient is summed: the graph's activations, and their gradients."""
    return samples_per_chunk(3 * activation_bytes(objective, first_sample(objective, source)), budget_bytes)
