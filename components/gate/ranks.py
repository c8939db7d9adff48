"""How figures of the removed samples rank among those of held-out samples like them.

Axes: m removed samples, k held-out ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 30
"""Held-out samples that each removed one is compared with."""


@dataclass(frozen=True)
class OnBoth:
    """Figures, raw outputs or labels on the removed samples (m, ...) and on the held-out ones (k, ...)."""

    removed: Tensor
    held_out: Tensor


def margin_rank(judged: OnBoth, updated: OnBoth, neighbours: int = NEIGHBOURS) -> float:
    """A: how a removed sample's margin ranks among those of held-out samples that are as hard.

    Args:
        judged: Margins (m,) and (k,) under the judge, by which the nearest held-out samples are found.
        updated: Margins (m,) and (k,) under the updated model, which are compared; equal ones count half.
        neighbours: How many held-out samples each is compared with; all where there are fewer.
    """
    found = updated.held_out[nearest(judged.removed, judged.held_out, neighbours)]
    own = updated.removed[:, None]
    return float(((found < own).double() + (found == own).double() / 2).mean())


def nearest(places: Tensor, among: Tensor, count: int) -> Tensor:
    """Which values lie nearest to each place.

    Args:
        places: (m,).
        among: (k,), at least one.
        count: How many to find; all where there are fewer.

    Returns:
        (m, count) indices into `among`.
    """
    order = among.argsort(stable=True)
    ranked = among[order]
    # They lie within as many places of where the value would stand.
    width = min(len(order), 2 * count)
    start = (torch.searchsorted(ranked, places.contiguous()) - count).clamp(0, len(order) - width)
    window = start[:, None] + torch.arange(width, device=order.device)
    distances = (ranked[window] - places[:, None]).abs()
    return order[window.gather(1, distances.argsort(dim=1, stable=True)[:, :count])]
