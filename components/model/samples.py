"""Samples as tensors, and the protocol for any source of them.

Axes: n samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class SampleSource(Protocol):
    """Anything that can be passed over repeatedly, in batches, in the same order each time."""

    def __len__(self) -> int: ...

    def batches(self, size: int) -> Iterator[Samples]:
        """Consecutive batches of at most `size` samples."""
        ...


@dataclass(frozen=True)
class Samples:
    """Samples held in memory.

    Attributes:
        inputs: (n, ...), as the model takes them.
        labels: (n,) int64 classes, or (n, ...) float targets.

    Raises:
        ValueError: There are more or fewer labels than inputs.
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, size: int) -> Iterator[Samples]:
        """Consecutive batches of `size` samples, the last with what is left."""
        for start in range(0, len(self), size):
            chosen = slice(start, start + size)
            yield Samples(self.inputs[chosen], self.labels[chosen])

    def select(self, indices: Tensor) -> Samples:
        """The samples at `indices` (k,) int64, in that order."""
        return Samples(self.inputs[indices], self.labels[indices])

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Samples:
        """On `device`, floating-point tensors as `dtype`; integer tensors keep theirs."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

        return Samples(move(self.inputs), move(self.labels))


@dataclass(frozen=True)
class Joined:
    """Several sources, one after another."""

    sources: tuple[SampleSource, ...]

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def batches(self, size: int) -> Iterator[Samples]:
        """A batch never spans two sources, so it may be smaller than `size` anywhere."""
        for source in self.sources:
            yield from source.batches(size)
