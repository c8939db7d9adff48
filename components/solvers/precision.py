"""Full float32 precision around curvature and solves.

On a GPU, float32 products may be rounded to TF32's 10 bits: convolutions are by default. A curvature of that precision
is no longer the same function at each product, and conjugate gradients then take rounding for negative curvature.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, matrix products and convolutions in float32 use all of its bits.

    The switches are the whole process's: other threads see them, and a generator must not yield inside.
    """
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
