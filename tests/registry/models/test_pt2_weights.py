"""Weights of torch.export archives: the very bits that torch reads, and nothing that runs code."""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._export.serde.schema import ScalarType

from oubli.registry.errors import PickledModelRefused, RegistryError
from oubli.registry.models.pt2_weights import _DTYPES, read_pt2_weights

INDEX = "data/weights/model_weights_config.json"


class Mixed(nn.Module):
    """Weights of every layout and number format that a state dict may hold, used just enough to be exported."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.linear.weight
        self.transposed = nn.Parameter(torch.randn(3, 4).T)
        self.scalar = nn.Parameter(torch.tensor(2.5))
        self.f64 = nn.Parameter(torch.randn(4, dtype=torch.float64))
        self.f16 = nn.Parameter(torch.randn(4, dtype=torch.float16))
        self.bf16 = nn.Parameter(torch.randn(4, dtype=torch.bfloat16))
        self.register_buffer("steps", torch.tensor([1, -2, 2**40]))
        self.register_buffer("small", torch.tensor([-128, 127], dtype=torch.int8))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("view", torch.arange(10.0)[2:8:2])
        self.register_buffer("empty", torch.empty(0, 3))
        self.register_buffer("odd", torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.tied(self.linear(inputs)) @ self.transposed + self.scalar


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(3, 2), (2, 3)),
    "float64": (lambda: nn.Linear(3, 2).double(), (2, 3)),
    "bfloat16": (lambda: nn.Linear(3, 2).bfloat16(), (2, 3)),
    "normalised": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), (2, 1, 5, 5)),
    "mixed": (Mixed, (2, 4)),
}


def save(module: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    dtype = next(module.parameters()).dtype
    with warnings.catch_warnings():
        # torch warns that a weight is a view of a larger tensor; that is what is tested.
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        torch.export.save(torch.export.export(module.eval(), (torch.zeros(shape, dtype=dtype),)), path)


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def described(weights: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    return {name: (tensor.dtype, tuple(tensor.shape), bits(tensor)) for name, tensor in weights.items()}


@pytest.mark.parametrize("kind", MODULES)
def test_the_very_bits_that_torch_reads(kind: str, tmp_path: Path) -> None:
    build, shape = MODULES[kind]
    torch.manual_seed(0)
    module = build()
    if kind == "normalised":
        module.train()(torch.randn(shape))  # so that the running statistics are not those of a fresh module
    path = tmp_path / "model.pt2"
    save(module, shape, path)
    found = read_pt2_weights(path)
    assert described(found) == described(torch.export.load(path).state_dict) == described(module.state_dict())
    build().load_state_dict(found, strict=True)


def test_each_weight_is_a_tensor_of_its_own(tmp_path: Path) -> None:
    save(Mixed(), (2, 4), tmp_path / "model.pt2")
    found = read_pt2_weights(tmp_path / "model.pt2")
    before = bits(found["tied.weight"])
    found["linear.weight"].zero_()
    assert bits(found["tied.weight"]) == before
    assert not any(tensor.requires_grad for tensor in found.values())


def test_number_formats_are_torchs_own() -> None:
    names = {
        torch.uint8: "BYTE",
        torch.int8: "CHAR",
        torch.int16: "SHORT",
        torch.int32: "INT",
        torch.int64: "LONG",
        torch.float16: "HALF",
        torch.float32: "FLOAT",
        torch.float64: "DOUBLE",
        torch.bool: "BOOL",
        torch.bfloat16: "BFLOAT16",
    }
    assert {ScalarType(code).name: dtype for code, dtype in _DTYPES.items()} == {
        name: dtype for dtype, name in names.items()
    }


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    save(nn.Linear(3, 2), (2, 3), tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of an archive; `change` gives each member's new bytes, or None to leave the member out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if (data := change(name, old.read(name))) is not None:
                new.writestr(name, data)
    return target


def with_entry(source: Path, target: Path, **changes: Any) -> Path:
    """A copy whose index says something else of the first weight."""

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith(INDEX):
            return data
        index = json.loads(data)
        entry = next(iter(index["config"].values()))
        for key, value in changes.items():
            (entry if key in entry else entry["tensor_meta"])[key] = value
        return json.dumps(index).encode()

    return rewrite(source, target, change)


class _Touches:
    """Unpickling this makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_pickled_weight_is_refused_and_not_unpickled(archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"
    poison = pickle.dumps(_Touches(marker))
    flagged = with_entry(archive, tmp_path / "flagged.pt2", use_pickle=True)
    hostile = rewrite(
        flagged,
        tmp_path / "hostile.pt2",
        lambda name, data: poison if "/weight_" in name or name.endswith(".pt") else data,
    )
    with pytest.raises(PickledModelRefused, match=r"'weight'.*pickle"):
        read_pt2_weights(hostile)
    assert not marker.exists()
    # The bait is live: whoever unpickles it does make the file.
    pickle.loads(poison)  # noqa: S301 - our own bytes
    assert marker.is_dir()


def test_pickles_beside_the_weights_are_not_read(archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"
    poison = pickle.dumps(_Touches(marker))
    replaced: list[str] = []

    def change(name: str, data: bytes) -> bytes:
        if not name.endswith(".pt"):
            return data
        replaced.append(name)
        return poison

    hostile = rewrite(archive, tmp_path / "hostile.pt2", change)
    assert replaced, "the archive's sample inputs are a pickle"
    assert described(read_pt2_weights(hostile)) == described(read_pt2_weights(archive))
    assert not marker.exists()


def _expect_unreadable(path: Path) -> None:
    with pytest.raises(RegistryError, match=r"\.pt2|number format") as caught:
        read_pt2_weights(path)
    assert type(caught.value) is RegistryError
    assert caught.value.remedy


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_truncated_archives(archive: Path, kept: int) -> None:
    archive.write_bytes(archive.read_bytes()[:kept])
    _expect_unreadable(archive)


def test_an_archive_without_an_index(archive: Path, tmp_path: Path) -> None:
    _expect_unreadable(
        rewrite(archive, tmp_path / "no-index.pt2", lambda name, data: None if name.endswith(INDEX) else data)
    )


def test_an_archive_without_anything(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "nothing.pt2", "w").close()
    _expect_unreadable(tmp_path / "nothing.pt2")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": []}', '{"config": {"weight": 1}}'])
def test_an_index_that_is_none(archive: Path, tmp_path: Path, text: str) -> None:
    _expect_unreadable(
        rewrite(archive, tmp_path / "odd.pt2", lambda name, data: text.encode() if name.endswith(INDEX) else data)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": 10},
        {"dtype": 0},
        {"path_name": "weight_99"},
        {"path_name": "../../../etc/passwd"},
        {"sizes": [{"as_int": 2}, {"as_int": 300}]},
        {"sizes": [{"as_expr": "s0"}]},
        {"strides": [{"as_int": 1}]},
        {"storage_offset": {"as_int": 1000}},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_an_index_that_does_not_fit_its_weights(archive: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    _expect_unreadable(with_entry(archive, tmp_path / "misfit.pt2", **changes))


def test_weights_shorter_than_the_index_says(archive: Path, tmp_path: Path) -> None:
    _expect_unreadable(
        rewrite(archive, tmp_path / "short.pt2", lambda name, data: data[:-1] if name.endswith("weight_0") else data)
    )
