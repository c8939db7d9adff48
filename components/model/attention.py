"""Attention that can be differentiated twice, mapped over samples and looked into.

torch computes attention by fused kernels where it can. Two of its short cuts stand in the way of this component:
- the kernels of `scaled_dot_product_attention` have no second derivative, and no rule for `torch.func.vmap`; the
  *math* form, built of ordinary operations, has both;
- in evaluation mode, with gradients off, `nn.TransformerEncoderLayer` and `nn.MultiheadAttention` take a fast path
  that calls no submodule, so that no hook sees their parts. It gives other roundings than the ordinary path, too.

Both forms compute the same function, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Inside, attention is made of ordinary operations, and every submodule of a transformer is called.

    Needed around a forward pass whose gradient is differentiated again, or that `vmap` runs, or that hooks watch; the
    backward pass may lie outside. May be nested. Both switches are the whole process's: other threads see them, and a
    generator must not yield inside.
    """
    with without_fast_path(), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Inside, a transformer's layers compute what they compute while gradients are on, submodule by submodule.

    With a padding mask the fast path returns zeros where padding was, so that a model which pools over all positions
    is another function in evaluation than in training. The switch is the whole process's, as above.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
