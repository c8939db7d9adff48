"""The model as a function of a block of its parameters, all others fixed.

Axes: d parameters, d_P of them in the block P, b samples.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.model.objective import Objective


@dataclass(frozen=True)
class Restriction:
    """`objective` at `theta`, as a function of the parameters in a block.

    Only tensors that the block touches depend on the argument, so that differentiation stops at the first of them.

    Attributes:
        objective: The model and its loss.
        theta: (d,) weights.
        block: (d_P,) int64 flat parameter indices in rising order; None for all d. An argument alone: see `indices`.
        indices: (d_P,) int64, the block, on theta's device.

    Raises:
        ConfigurationError: The block is no index set.
    """

    objective: Objective
    theta: Tensor
    block: InitVar[Tensor | None]
    indices: Tensor = field(init=False)
    _local: Tensor = field(init=False, repr=False)

    def __post_init__(self, block: Tensor | None) -> None:
        space = self.objective.space
        block = torch.arange(space.d) if block is None else block.cpu()
        ordered = block.ndim == 1 and len(block) > 0 and bool((block[1:] > block[:-1]).all())
        if not ordered or block.dtype is not torch.int64 or block[0] < 0 or block[-1] >= space.d:
            raise ConfigurationError(
                f"The block must be distinct int64 indices below {space.d} in rising order, at least one; "
                f"found shape {tuple(block.shape)}, dtype {block.dtype}.",
                remedy="Pass Blanket.indices, or None for all parameters.",
            )
        object.__setattr__(self, "indices", block.to(self.theta.device))
        object.__setattr__(self, "_local", self._positions_in_touched(block).to(self.theta.device))

    @property
    def size(self) -> int:
        """d_P."""
        return len(self.indices)

    @property
    def touched(self) -> tuple[str, ...]:
        """Names of the parameter tensors with at least one element in the block."""
        space = self.objective.space
        bounds = torch.tensor(space.offsets, device=self.indices.device)
        places = torch.searchsorted(self.indices, bounds).tolist()
        return tuple(name for name, low, high in zip(space.names, places, places[1:], strict=False) if low < high)

    @property
    def touched_size(self) -> int:
        """How many parameters those tensors have, in the block or not."""
        return sum(len(self.objective.space.range_of(name)) for name in self.touched)

    @property
    def values(self) -> Tensor:
        """The block's parameters, (d_P,)."""
        return self.theta[self.indices]

    def outputs(self, values: Tensor, inputs: Tensor) -> Tensor:
        """The model's outputs with other values of the block's parameters.

        Args:
            values: (d_P,).
            inputs: (b, ...), prepared.

        Returns:
            (b, ...).
        """
        return self.objective.outputs(self._parameters(values), inputs)

    def _parameters(self, values: Tensor) -> dict[str, Tensor]:
        """All weights by name, those of the block at `values`."""
        space = self.objective.space
        parameters = space.unflatten(self.theta)
        fixed = torch.cat([parameters[name].reshape(-1) for name in self.touched])
        moved = fixed.index_copy(0, self._local, values)
        # One split, since the derivative of each slice by itself would be as long as all of them.
        parts = torch.split(moved, [parameters[name].numel() for name in self.touched])
        for name, part in zip(self.touched, parts, strict=True):
            parameters[name] = part.view(parameters[name].shape)
        return parameters

    def _positions_in_touched(self, block: Tensor) -> Tensor:
        """(d_P,) positions of the block in the touched tensors, one after another."""
        ranges = [self.objective.space.range_of(name) for name in self.touched]
        return torch.searchsorted(torch.cat([torch.arange(part.start, part.stop) for part in ranges]), block)
