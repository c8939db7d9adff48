"""How many samples to take at once, from what one sample costs in memory.

Axes: b samples of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from oubli.components.errors import ConfigurationError
from oubli.components.model.attention import differentiable_attention
from oubli.components.model.objective import Objective
from oubli.components.model.samples import SampleSource

MEMORY_BUDGET_BYTES = 256 * 2**20
"""What one chunk's temporaries may take: well inside any worker, and past the point where larger chunks run faster."""

LARGEST_CHUNK = 1024


def samples_per_chunk(bytes_per_sample: int, budget_bytes: int = MEMORY_BUDGET_BYTES) -> int:
    """The largest chunk within a budget.

    Args:
        bytes_per_sample: What one sample's temporaries take.
        budget_bytes: What those of a chunk may take.

    Returns:
        b, at least 1 and at most LARGEST_CHUNK.
    """
    return max(1, min(LARGEST_CHUNK, budget_bytes // max(1, bytes_per_sample)))


def activation_bytes(objective: Objective, inputs: Tensor) -> int:
    """Bytes that one more sample takes in a forward pass: its input and every tensor that an operation makes of it.

    Measured, since it follows neither from the parameter count nor from the input: the difference between passes over
    two and over one sample, so that what all samples share (masks, reparametrised weights) is not counted. Attention
    counts with its scores, as `differentiable_attention` computes it.

    Args:
        objective: The model and its loss.
        inputs: (1, ...), prepared.
    """
    single, pair = (_bytes_made(objective, torch.cat([inputs] * count)) for count in (1, 2))
    return inputs.nbytes + max(0, pair - single)


def _bytes_made(objective: Objective, inputs: Tensor) -> int:
    """Of all tensors that a forward pass makes."""
    made = _Allocations()
    with made, differentiable_attention(), torch.no_grad():
        objective.outputs({}, inputs)
    return made.total


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class is not typed
    """Sums the bytes of what operations return anew; views and tensors changed in place cost nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        returned = result if isinstance(result, tuple) else (result,)
        for what, declared in zip(returned, func._schema.returns, strict=False):
            if declared.alias_info is None:
                self.total += sum(leaf.nbytes for leaf in tree_leaves(what) if isinstance(leaf, Tensor))
        return result


def first_sample(objective: Objective, source: SampleSource) -> Tensor:
    """The first sample's prepared input, (1, ...).

    Args:
        objective: On whose device, and in whose dtype, it is.
        source: Read no further.

    Raises:
        ConfigurationError: The source is empty.
    """
    if len(source) == 0:
        raise ConfigurationError("The sample source is empty.", remedy="Pass at least one sample.")
    return objective.prepare(next(iter(source.batches(1)))).inputs


def pass_chunk(objective: Objective, source: SampleSource, budget_bytes: int = MEMORY_BUDGET_BYTES) -> int:
    """Chunk size for a pass over a source whose gradient is summed: the graph's activations, and their gradients.

    Args:
        objective: The model and its loss.
        source: The samples.
        budget_bytes: What one chunk's temporaries may take.

    Raises:
        ConfigurationError: The source is empty.
    """
    return samples_per_chunk(3 * activation_bytes(objective, first_sample(objective, source)), budget_bytes)
