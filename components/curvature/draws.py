"""Random numbers that belong to a sample, whatever batch it comes in.

Axes: b samples, k numbers of each.

A number here is a function of the seed and of the sample's own input, not of its place in a stream. So the draws are
the same for every chunk size and order, and a sample that is removed later can have taken out exactly what was drawn
for it when it was put in. Equal inputs draw alike, which leaves the expectation as it is.

The key is a multilinear hash of the input's bits modulo 2^64, with odd multipliers; numbers follow from keys by the
mixer of Steele, Lea and Flood (*Fast splittable pseudorandom number generators*, OOPSLA 2014).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed number
_FIRST, _SECOND = -4658895280553007687, -7723592293110705685
_MANTISSA = 53


def sample_keys(inputs: Tensor, seed: int) -> Tensor:
    """A key of each sample's input.

    Args:
        inputs: (b, ...), integers or floating point; the latter is read as float32, so that the key does not depend on
            the objective's dtype.
        seed: Of the hash.

    Returns:
        (b,) int64.
    """
    flat = inputs.flatten(1)
    bits = flat.to(torch.float32).view(torch.int32).to(torch.int64) if flat.is_floating_point() else flat.long()
    places = torch.arange(1, bits.shape[1] + 1, device=bits.device)
    start = _mixed(torch.tensor([seed], device=bits.device) * _GOLDEN)
    multipliers = _mixed(places * _GOLDEN + start) | 1
    # Integers wrap around modulo 2^64, in whatever order they are added.
    return _mixed((bits * multipliers).sum(1) + start)


def uniforms(keys: Tensor, count: int) -> Tensor:
    """Uniform numbers.

    Args:
        keys: (b,) int64.
        count: k, how many of each key.

    Returns:
        (b, k) float64 in (0, 1).
    """
    counters = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    bits = _right(_mixed(keys[:, None] + counters), 64 - _MANTISSA)
    return (bits.double() + 0.5) * 2.0**-_MANTISSA


def normals(keys: Tensor, count: int) -> Tensor:
    """Standard normal numbers.

    Args:
        keys: (b,) int64.
        count: k, how many of each key.

    Returns:
        (b, k) float64.
    """
    return math.sqrt(2) * torch.erfinv(2 * uniforms(keys, count) - 1)


def _mixed(values: Tensor) -> Tensor:
    """The mixer's bijection of 64-bit integers."""
    values = (values ^ _right(values, 30)) * _FIRST
    values = (values ^ _right(values, 27)) * _SECOND
    return values ^ _right(values, 31)


def _right(values: Tensor, places: int) -> Tensor:
    """Shift right, filling with zeros: torch fills with the sign."""
    return (values >> places) & ((1 << (64 - places)) - 1)
