"""Tensors that are kept beside a version, with facts in the file's header.

    <store>/<folder>/<sha256>.safetensors

A version's tags point to them by URI and digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import safe_open
from safetensors.torch import save_file

from oubli.registry.errors import DigestMismatch, ObjectMissing
from oubli.registry.storage.digests import file_digest
from oubli.registry.storage.scratch import temporary_folder
from oubli.registry.storage.stores import open_local, store_for
from oubli.registry.storage.uris import join

if TYPE_CHECKING:
    from torch import Tensor

    from oubli.registry.models.model_registry import RegisteredVersion


class TagNames(NamedTuple):
    """The tags that point to one kind of kept tensors."""

    uri: str
    sha256: str


class Kept(NamedTuple):
    """What was stored."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def store_tensors(
    store_root: str, folder: str, tensors: Mapping[str, Tensor], facts: Mapping[str, object], names: TagNames
) -> dict[str, str]:
    """Put tensors on the store.

    Args:
        store_root: URI of the store.
        folder: Of their kind.
        tensors: By name.
        facts: As JSON knows them.
        names: Of the tags.

    Returns:
        The version tags that point to them.

    Raises:
        StoreError: The store cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with temporary_folder() as scratch:
        path = scratch / "kept.safetensors"
        save_file(plain, path, metadata={"facts": json.dumps(facts, sort_keys=True)})
        digest = file_digest(path)
        uri = join(store_root, folder, f"{digest}.safetensors")
        store_for(uri).upload(path, uri)
    return {names.uri: uri, names.sha256: digest}


def load_tensors(version: RegisteredVersion, what: str, names: TagNames) -> Kept | None:
    """What a version's tags point to; None where it has none, or where it was deleted.

    Args:
        version: Whose tags they are.
        what: The tensors' kind, as messages name it.
        names: Of the tags.

    Raises:
        DigestMismatch: The bytes are not those that were registered.
    """
    uri = version.tags.get(names.uri)
    if uri is None:
        return None
    try:
        with open_local(uri) as path:
            if (digest := file_digest(path)) != version.tags[names.sha256]:
                raise DigestMismatch(
                    f"The {what} of {version.label} at {uri} has SHA-256 {digest}, but "
                    f"{version.tags[names.sha256]} was registered.",
                    remedy="Restore the object, or delete it: a removal then passes over the retained samples.",
                )
            with safe_open(path, framework="pt") as stored:
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
                return Kept(tensors, json.loads(stored.metadata()["facts"]))
    except ObjectMissing:
        return None
