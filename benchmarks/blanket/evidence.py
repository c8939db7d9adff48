"""Are the selected slices evidence: do they return, do they tell samples apart, did they move?

Axes: k samples of a kind, p slices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from oubli.components.blocks.slice_sizes import slice_totals
from oubli.components.blocks.slices import SliceMap

Chosen = Sequence[int]

DRAWS = 999
"""Of a permutation test."""


def jaccard(one: Chosen, other: Chosen) -> float:
    """Shared slices as a share of all in either; 1 for two empty selections."""
    union = set(one) | set(other)
    return len(set(one) & set(other)) / len(union) if union else 1.0


def same_sample(one: Sequence[Chosen], other: Sequence[Chosen]) -> float:
    """Mean Jaccard index of each sample's two selections."""
    return float(np.mean([jaccard(a, b) for a, b in zip(one, other, strict=True)]))


def other_samples(chosen: Sequence[Chosen]) -> float:
    """Mean Jaccard index over pairs of samples."""
    return float(np.mean([jaccard(chosen[a], chosen[b]) for a in range(len(chosen)) for b in range(a)]))


def difference(removed: Sequence[Chosen], retained: Sequence[Chosen], seed: int) -> tuple[float, float]:
    """Mean Jaccard index within the kinds less that between them, and its p-value.

    Sample i of each kind has the same label. Under the null hypothesis the two of a pair can change places: the p-value
    is the share of DRAWS random exchanges, and of the pairs as they are, with a difference as large.
    """
    k = len(removed)
    both = [*removed, *retained]
    table = np.array([[jaccard(a, b) for b in both] for a in both])

    def found(first: np.ndarray) -> float:
        second = np.where(first < k, first + k, first - k)
        # A pair shares a label by design and is left out between the kinds.
        off = ~np.eye(k, dtype=bool)
        within = (table[np.ix_(first, first)][off].mean() + table[np.ix_(second, second)][off].mean()) / 2
        return float(within - table[np.ix_(first, second)][off].mean())

    generator = np.random.default_rng(seed)
    own = found(np.arange(k))
    drawn = [found(np.where(generator.random(k) < 0.5, np.arange(k), np.arange(k) + k)) for _ in range(DRAWS)]
    return own, (1 + sum(one >= own - 1e-12 for one in drawn)) / (1 + DRAWS)


def movement(slices: SliceMap, moved: Tensor) -> np.ndarray:
    """(p,) mean absolute change of each slice's parameters, in units of its layer's mean."""
    changes, sizes = slice_totals(slices, moved.abs()), slice_totals(slices, torch.ones_like(moved))
    found = []
    for layer in slices.layers:
        own = [one for one in slices.slices if one.module == layer.module]
        means = np.array([changes[one] / sizes[one] for one in own])
        found.append(means / max(means.mean(), np.finfo(float).tiny))
    return np.concatenate(found)


def moved_more(slices: SliceMap, movements: np.ndarray, chosen: Chosen, seed: int) -> tuple[float, float]:
    """The chosen slices' mean movement (1: as all of their layers), and the p-value against others of these layers."""
    layers = np.array([one.module for one in slices.slices])
    positions = np.array(sorted(chosen))
    if len(positions) == 0:
        return float("nan"), float("nan")
    own = float(movements[positions].mean())
    generator = np.random.default_rng(seed)
    counts = {layer: int((layers[positions] == layer).sum()) for layer in set(layers[positions])}

    def drawn() -> float:
        picked = [
            generator.choice(movements[layers == layer], count, replace=False)
            for layer, count in sorted(counts.items())
        ]
        return float(np.concatenate(picked).mean())

    return own, (1 + sum(drawn() >= own for _ in range(DRAWS))) / (1 + DRAWS)
