"""Weights out of a torch.export archive (pt2) without running any code it holds.

`torch.export.load` unpickles what the archive asks it to (sample inputs, opaque constants), so a hostile
artifact could run code on the worker. An archive stores ordinary weights as raw bytes described by a JSON
index; that is all that is read here. Weights stored as pickles are refused.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oubli.registry.errors import PickledModelRefused, RegistryError

# torch's serialized scalar types (torch/_export/serde/schema.py, ScalarType).
_DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_INDEX = "data/weights/model_weights_config.json"


def read_pt2_weights(path: Path) -> dict[str, Tensor]:
    """The module's state dict, buffers included, under the module's own names.

    Args:
        path: A torch.export archive.

    Raises:
        PickledModelRefused: A weight is stored as a pickle.
        RegistryError: The archive cannot be read, or holds a number format that Oubli does not know.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            folder = _top_folder(archive)
            index: dict[str, Any] = json.loads(archive.read(f"{folder}/{_INDEX}"))["config"]
            return {name: _weight(archive, folder, name, entry) for name, entry in index.items()}
    except (zipfile.BadZipFile, LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        # RuntimeError: torch finds sizes, strides or offsets that the stored bytes do not hold.
        raise RegistryError(
            f"{path.name} cannot be read as a torch.export archive ({type(error).__name__}: {error}).",
            remedy="Log the model again with mlflow.pytorch.log_model(..., serialization_format='pt2').",
        ) from error


def _top_folder(archive: zipfile.ZipFile) -> str:
    return archive.namelist()[0].split("/", 1)[0]


def _weight(archive: zipfile.ZipFile, folder: str, name: str, entry: dict[str, Any]) -> Tensor:
    if entry["use_pickle"]:
        raise PickledModelRefused(
            f"Weight {name!r} is stored as a pickle inside the torch.export archive.",
            remedy="Log the model again with plain dense weights.",
        )
    meta = entry["tensor_meta"]
    dtype = _DTYPES.get(meta["dtype"])
    if dtype is None:
        raise RegistryError(
            f"Weight {name!r} has a number format (code {meta['dtype']}) that Oubli does not read.",
            remedy="Log the model in float32 or float64.",
        )
    data = bytearray(archive.read(f"{folder}/data/weights/{entry['path_name']}"))
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    sizes = [size["as_int"] for size in meta["sizes"]]
    strides = [stride["as_int"] for stride in meta["strides"]]
    return torch.as_strided(flat, sizes, strides, meta["storage_offset"]["as_int"]).clone()
