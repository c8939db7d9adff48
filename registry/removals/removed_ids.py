"""Every sample id removed since a model was trained, kept on the object store beside its lineage.

One Parquet file per version, cumulative: columns `sample_id` and `removal_key`, that of the removal that took it. The
ids stay inside the object store; MLflow only knows the file's URI and digest.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from oubli.registry.errors import DigestMismatch
from oubli.registry.models import tags
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.storage.keyed_digests import store_digest
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

_FOLDER = "removed"
_SCHEMA = pa.schema([("sample_id", pa.string()), ("removal_key", pa.string())])


def removed_before(version: RegisteredVersion) -> dict[str, str]:
    """The samples that a version lacks although its training data holds them.

    Returns:
        The key of the removal that took each sample, by sample id.

    Raises:
        ObjectMissing: The list that the version's tags point to was deleted.
        DigestMismatch: The list was altered.
        StoreError: The store cannot be read.
    """
    uri = version.tags.get(tags.REMOVED)
    if uri is None:
        return {}
    data = store_for(uri).read(uri)
    store_root = uri.rpartition(f"/{_FOLDER}/")[0]
    if _digest(store_root, data) != version.tags[tags.REMOVED_DIGEST]:
        raise DigestMismatch(
            f"The list of removed samples of {version.label} at {uri} is not the one that was registered.",
            remedy="Restore the object; without it nobody can tell what the model was trained on.",
        )
    table = pq.read_table(io.BytesIO(data))
    return dict(zip(table.column("sample_id").to_pylist(), table.column("removal_key").to_pylist(), strict=True))


def removed_from_any(registry: ModelRegistry, name: str) -> dict[str, str]:
    """The samples that any version of a model lacks although its training data holds them.

    Returns:
        The key of a removal that took each sample, by sample id.

    Raises:
        ObjectMissing: A list was deleted.
        DigestMismatch: A list was altered.
        StoreError: The store cannot be read.
    """
    removed: dict[str, str] = {}
    for version in registry.versions(name):
        removed |= removed_before(version)
    return removed


def store_removed(
    store_root: str, removal_key: str, new_ids: Iterable[str], before: Mapping[str, str]
) -> dict[str, str]:
    """Put the list of every removed sample on the store.

    Args:
        store_root: URI of the object store's root.
        removal_key: The removal that takes `new_ids`.
        new_ids: The samples that it takes.
        before: The samples that were removed before, each with the key of its removal.

    Returns:
        The version tags that point to the list.

    Raises:
        StoreError: The store cannot be written.
    """
    rows = {**before, **dict.fromkeys(new_ids, removal_key)}
    table = pa.table({"sample_id": sorted(rows), "removal_key": [rows[each] for each in sorted(rows)]}, schema=_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    digest = _digest(store_root, buffer.getvalue())
    # Named by its content: another list never replaces this one.
    uri = join(store_root, _FOLDER, f"{digest}.parquet")
    store_for(uri).write(uri, buffer.getvalue())
    return {tags.REMOVED: uri, tags.REMOVED_DIGEST: digest}


def _digest(store_root: str, data: bytes) -> str:
    """Keyed, because MLflow shows it, and the list of a single removed sample could be found by guessing."""
    return store_digest(store_root, [bytes_digest(data)])
