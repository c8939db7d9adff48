"""State dicts as safetensors files, and their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name; tied tensors are written once for each name."""
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors that `save_weights` wrote, on the CPU."""
    return load_file(path)


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, number formats, shapes and bytes, independent of any file format."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
