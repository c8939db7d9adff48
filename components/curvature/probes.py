"""Random signs, to estimate a trace with (Hutchinson 1990).

Axes: d_P parameters of the block.
"""

from __future__ import annotations

import torch
from torch import Tensor

TRACE_PROBES = 16
"""The trace scales the damping, where a relative error of some per cent does not matter."""


def random_signs(count: int, like: Tensor) -> Tensor:
    """Random +1 and -1 from a fixed seed, drawn on the CPU: the same block gives the same signs everywhere.

    Args:
        count: How many vectors.
        like: (d_P,), whose dtype and device the signs have.

    Returns:
        (count, d_P).
    """
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (count, len(like)), generator=generator, dtype=torch.int8) * 2 - 1
    return signs.to(like)
