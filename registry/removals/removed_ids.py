"""Every sample id removed since a model was trained, kept on the object store beside its lineage.

One Parquet file per version, cumulative: columns `sample_id` and `outcome` (the removal that took it). The ids stay
inside the object store; MLflow only knows the file's URI and digest.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from oubli.components.errors import DigestMismatch
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

_SCHEMA = pa.schema([("sample_id", pa.string()), ("outcome", pa.string())])


def removed_before(version: RegisteredVersion) -> dict[str, str]:
    """The ids that are not in `version` any more, each with the outcome that removed it.

    Raises ObjectMissing, DigestMismatch.
    """
    uri = version.tags.get("oubli.removed")
    if uri is None:
        return {}
    data = store_for(uri).read(uri)
    if (found := bytes_digest(data)) != version.tags["oubli.removed_sha256"]:
        raise DigestMismatch(
            f"The list of removed samples of {version.label} at {uri} has SHA-256 {found}, but "
            f"{version.tags['oubli.removed_sha256']} was registered.",
            remedy="Restore the object; without it nobody can tell what the model was trained on.",
        )
    table = pq.read_table(io.BytesIO(data))
    return dict(zip(table.column("sample_id").to_pylist(), table.column("outcome").to_pylist(), strict=True))


def store_removed(store_root: str, outcome: str, new_ids: Iterable[str], before: Mapping[str, str]) -> dict[str, str]:
    """Put the cumulative list on the store; the version tags that point to it."""
    rows = {**before, **dict.fromkeys(new_ids, outcome)}
    table = pa.table({"sample_id": sorted(rows), "outcome": [rows[each] for each in sorted(rows)]}, schema=_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    uri = join(store_root, "removed", f"{outcome}.parquet")
    store_for(uri).write(uri, buffer.getvalue())
    return {"oubli.removed": uri, "oubli.removed_sha256": bytes_digest(buffer.getvalue())}
