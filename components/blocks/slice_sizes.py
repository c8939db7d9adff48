"""What each slice adds up to, and blocks of a given size made of whole slices.

Axes: p slices, d trained parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from oubli.components.blocks.slices import Slice, SliceMap
from oubli.components.errors import ConfigurationError


def slice_totals(slices: SliceMap, vector: Tensor) -> dict[Slice, float]:
    """For each slice, the sum of a vector over its parameters, in float64.

    One pass over the vector: asking `SliceMap.indices` slice by slice takes time p d.

    Args:
        slices: p slices.
        vector: (d,), such as squared gradients.
    """
    vector = vector.detach().to("cpu", torch.float64)
    totals = {}
    for layer in slices.layers:
        units = torch.zeros(layer.units, dtype=torch.float64)
        for name, part in layer.parts:
            span = slices.space.range_of(name)
            sums = vector[span.start : span.stop].view(part.shape).sum((1, 3)).flatten()
            units[part.first : part.first + len(sums)] += sums
        chosen = range(layer.units) if layer.chosen is None else layer.chosen
        values = units.tolist()
        totals.update({Slice(layer.module, unit): values[unit] for unit in chosen})
    return totals


def within_size(slices: SliceMap, ranked: Iterable[Slice], size: int) -> tuple[Slice, ...]:
    """Slices of a block of at most a given size.

    Down the ranks, each slice is taken that does not bring the block above `size`: the block misses it by less than
    the smallest slice left out would add. Parameters that tied slices share count once. Where no slice is that small,
    the first is taken alone.

    Args:
        slices: the candidates.
        ranked: some of them, the preferred ones first.
        size: the most parameters.

    Returns:
        The slices taken, in their rank's order.

    Raises:
        ConfigurationError: the size is below 1.
    """
    if size < 1:
        raise ConfigurationError(
            f"size is {size}; a block has at least 1 parameter.", remedy="Give the size of a block to match."
        )
    order = list(ranked)
    sizes = slice_totals(slices, torch.ones(slices.space.d))
    tied = _tied_modules(slices)
    # Only slices of tied layers can overlap.
    shared = torch.zeros(slices.space.d if tied else 0, dtype=torch.bool)
    taken, used = [], 0
    for candidate in order:
        overlaps = candidate.module in tied
        indices = slices.indices([candidate]) if overlaps else torch.empty(0, dtype=torch.int64)
        added = int((~shared[indices]).sum()) if overlaps else int(sizes[candidate])
        if used + added <= size:
            shared[indices] = True
            taken.append(candidate)
            used += added
    return tuple(taken or order[:1])


def _tied_modules(slices: SliceMap) -> frozenset[str]:
    holders = Counter(name for layer in slices.layers for name in {name for name, _ in layer.parts})
    return frozenset(layer.module for layer in slices.layers if any(holders[name] > 1 for name, _ in layer.parts))
