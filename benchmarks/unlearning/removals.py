"""Which training samples are removed.

Axes: n training samples, m removed samples.

By number: m at random; where samples have owners (contracts), whole owners until about m. `half_class`: half of one
class's training samples, the half at random, the class another for each seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.unlearning.data import DataSet
from oubli.components.model.samples import Samples

HALF_CLASS = "half_class"
SIZES = ("1", "10", "50", "100", HALF_CLASS)


@dataclass(frozen=True)
class Removal:
    """size: as asked for, one of SIZES; removed: sorted (m,) positions in the training samples of `data`."""

    data: DataSet
    size: str
    seed: int
    positions: Tensor

    @property
    def count(self) -> int:
        """m."""
        return len(self.positions)

    @property
    def name(self) -> str:
        return f"{self.size}-{self.seed}"

    @property
    def removed(self) -> Samples:
        return self.data.train.select(self.positions)

    @property
    def retained_positions(self) -> Tensor:
        keep = torch.ones(len(self.data.train), dtype=torch.bool)
        keep[self.positions] = False
        return keep.nonzero().flatten()

    @property
    def retained(self) -> Samples:
        return self.data.train.select(self.retained_positions)


def removal(data: DataSet, size: str, seed: int) -> Removal:
    generator = torch.Generator().manual_seed(1000 + seed)
    if size == HALF_CLASS:
        chosen = _half_class(data.train.labels, seed, generator)
    elif data.owner is None:
        chosen = torch.randperm(len(data.train), generator=generator)[: int(size)]
    else:
        chosen = _whole_owners(data.owner, int(size), generator)
    return Removal(data, size, seed, chosen.sort().values)


def _half_class(labels: Tensor, seed: int, generator: torch.Generator) -> Tensor:
    present = torch.tensor(sorted(set(labels.tolist())))
    # One order of the classes for all seeds, so that each seed takes another.
    order = present[torch.randperm(len(present), generator=torch.Generator().manual_seed(0))]
    members = (labels == order[seed % len(order)]).nonzero().flatten()
    half: Tensor = members[torch.randperm(len(members), generator=generator)][: max(1, len(members) // 2)]
    return half


def _whole_owners(owner: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Owners in random order, each taken if that brings the count nearer to `size`; the smallest if none does."""
    counts = torch.bincount(owner)
    present = counts.nonzero().flatten()
    order = present[torch.randperm(len(present), generator=generator)]
    taken: list[int] = []
    total = 0
    for one in order.tolist():
        count = int(counts[one])
        if abs(total + count - size) < abs(total - size):
            taken.append(one)
            total += count
    if not taken:
        taken = [int(order[counts[order].argmin()])]
    return torch.isin(owner, torch.tensor(taken)).nonzero().flatten()
