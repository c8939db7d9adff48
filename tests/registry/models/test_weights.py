"""State dicts as files, and their digest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from oubli.registry.models.weights import load_weights, save_weights, weights_digest

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def described(weights: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    return {name: (tensor.dtype, tuple(tensor.shape), bits(tensor)) for name, tensor in weights.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 3)], ids=str)
def test_weights_come_back_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {"layer.weight": (10 * torch.randn(shape, generator=generator)).to(dtype)}
    save_weights(weights, tmp_path / "weights.safetensors")
    found = load_weights(tmp_path / "weights.safetensors")
    assert described(found) == described(weights)
    assert weights_digest(found) == weights_digest(weights)


def test_odd_numbers_keep_their_bits(tmp_path: Path) -> None:
    # Two different NaNs, a negative zero, a number below the normal range.
    weights = {"odd": torch.tensor([0x7FC00000, 0x7FC00001, -(2**31), 1], dtype=torch.int32).view(torch.float32)}
    save_weights(weights, tmp_path / "weights.safetensors")
    assert described(load_weights(tmp_path / "weights.safetensors")) == described(weights)


def test_tied_strided_and_trained_weights(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    module[1].weight = module[0].weight
    module[0].bias = nn.Parameter(torch.arange(12.0)[1:10:3])
    module(torch.randn(4, 3)).sum().backward()
    save_weights(module.state_dict(keep_vars=True), tmp_path / "weights.safetensors")
    found = load_weights(tmp_path / "weights.safetensors")
    assert described(found) == described(module.state_dict())
    assert not any(tensor.requires_grad for tensor in found.values())


def test_saving_twice_gives_the_same_file(tmp_path: Path) -> None:
    weights = nn.Linear(4, 4).state_dict()
    save_weights(weights, tmp_path / "one")
    save_weights(dict(reversed(weights.items())), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@given(st.permutations(["a", "b", "c.weight", "c.bias"]))
def test_the_digest_knows_no_order(names: list[str]) -> None:
    values = {"a": torch.zeros(2), "b": torch.ones(()), "c.weight": torch.eye(3), "c.bias": torch.arange(3)}
    assert weights_digest({name: values[name] for name in names}) == weights_digest(values)


def test_the_digest_knows_no_memory_layout() -> None:
    plain = torch.arange(6.0).reshape(2, 3)
    strided = plain.T.contiguous().T
    assert strided.stride() != plain.stride()
    assert weights_digest({"w": strided}) == weights_digest({"w": plain})
    assert weights_digest({"w": nn.Parameter(plain)}) == weights_digest({"w": plain})


@pytest.mark.parametrize(
    "other",
    [
        {"v": torch.zeros(2, 3)},
        {"w": torch.zeros(3, 2)},
        {"w": torch.zeros(6)},
        {"w": torch.zeros(2, 3, dtype=torch.int32)},
        {"w": -torch.zeros(2, 3)},
        {"w": torch.zeros(2, 3), "b": torch.zeros(0)},
        {},
    ],
    ids=["name", "shape", "flat", "dtype", "sign of zero", "one more", "none"],
)
def test_the_digest_tells_apart(other: dict[str, Tensor]) -> None:
    assert weights_digest(other) != weights_digest({"w": torch.zeros(2, 3)})


def test_the_digest_is_the_same_on_every_machine() -> None:
    # By hand: SHA-256 of b"w torch.float32 (2,)\n" and the eight bytes of 0.0 and 1.0, little-endian.
    assert weights_digest({"w": torch.tensor([0.0, 1.0])}) == (
        "e8d3f598e9813ec936a24427683c8389a3bf14f78a7ddf12f3d9c2dee59561b4"
    )
