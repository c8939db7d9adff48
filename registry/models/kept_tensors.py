"""Tensors that are kept beside a version, in a safetensors file with facts in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import safe_open
from safetensors.torch import save_file

from oubli.registry.models.kept_files import KeptFile
from oubli.registry.storage.scratch import temporary_folder

if TYPE_CHECKING:
    from torch import Tensor

    from oubli.registry.models.model_registry import RegisteredVersion


class Kept(NamedTuple):
    """What was stored."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def store_tensors(
    file: KeptFile, store_root: str, tensors: Mapping[str, Tensor], facts: Mapping[str, object]
) -> dict[str, str]:
    """Put tensors on the store.

    Args:
        file: Their kind.
        store_root: URI of the store.
        tensors: By name.
        facts: As JSON knows them.

    Returns:
        The version tags that point to them.

    Raises:
        StoreError: The store cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with temporary_folder() as scratch:
        path = scratch / "kept.safetensors"
        save_file(plain, path, metadata={"facts": json.dumps(facts, sort_keys=True)})
        return file.store(store_root, path)


def load_tensors(file: KeptFile, version: RegisteredVersion) -> Kept | None:
    """What a version's tags point to; None where it has none, or where it was deleted.

    Args:
        file: The tensors' kind.
        version: Whose tags they are.

    Raises:
        DigestMismatch: The bytes are not those that were registered.
    """
    with file.opened(version) as path:
        if path is None:
            return None
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
            return Kept(tensors, json.loads(stored.metadata()["facts"]))
