from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional

from oubli.components.model.attention import differentiable_attention


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def fused(x: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(x, 2 * x, x.square())


def plain(x: Tensor) -> Tensor:
    scores = x @ (2 * x).transpose(-1, -2) / math.sqrt(x.shape[-1])
    return scores.softmax(-1) @ x.square()


def curvature_product(attend, x: Tensor, v: Tensor) -> Tensor:
    return grad(lambda at: (grad(lambda y: attend(y).square().sum())(at) * v).sum())(x)


def test_second_derivatives_are_those_of_the_formula():
    x, v = normal(3, 2, 4, 5), normal(3, 2, 4, 5).flip(0)
    with differentiable_attention():
        found = curvature_product(fused, x, v)
        mapped = vmap(lambda a, b: curvature_product(fused, a[None], b[None])[0])(x, v)
    torch.testing.assert_close(found, curvature_product(plain, x, v), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mapped, found, rtol=1e-10, atol=1e-10)


def test_every_part_of_an_encoder_is_called_with_gradients_off():
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).double().eval().requires_grad_(False)
    called = []
    for name, part in layer.named_modules():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    with differentiable_attention(), torch.no_grad():
        layer(normal(2, 3, 8))
    assert {"self_attn", "linear1", "linear2", "norm1", "norm2"} <= set(called)


def switches() -> tuple[bool, ...]:
    return (
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
    )


def test_the_switches_return_to_where_they_were():
    before = switches()
    with differentiable_attention():
        with differentiable_attention():
            assert switches() == (False, False, False, True)
        assert switches() == (False, False, False, True)
    assert switches() == before
    with pytest.raises(KeyError), differentiable_attention():
        raise KeyError
    assert switches() == before
