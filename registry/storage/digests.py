"""SHA-256 of files, folders and values, and keyed digests of identifiers.

A plain digest of identifiers hides nothing: ids can be guessed, and each guess checked. Digests of ids that leave the
object store (MLflow shows them) are therefore HMACs under a key that stays in it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from oubli.registry.errors import DataError, ObjectExists, ObjectMissing
from oubli.registry.storage.object_store import ObjectStore
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

PARQUET_SUFFIX = ".parquet"
KEY_BYTES = 32  # as long as the hash's output (RFC 2104, section 3)


def bytes_digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dataset_parts(path: Path) -> tuple[Path, ...]:
    """The file itself, or every Parquet file below the folder, sorted by relative path."""
    if not path.is_dir():
        return (path,)
    return tuple(sorted(path.rglob(f"*{PARQUET_SUFFIX}"), key=lambda part: part.relative_to(path).as_posix()))


def dataset_digest(path: Path) -> str:
    """A file's SHA-256; for a folder, SHA-256 over sorted lines "relative-path sha256\\n" of its Parquet parts."""
    if not path.is_dir():
        return file_digest(path)
    lines = (f"{part.relative_to(path).as_posix()} {file_digest(part)}\n" for part in dataset_parts(path))
    return bytes_digest("".join(lines).encode())


def json_digest(value: object) -> str:
    """SHA-256 of the value's canonical JSON: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return bytes_digest(text.encode())


def digest_key(store: ObjectStore, root_uri: str) -> bytes:
    """The store's secret for keyed digests, made on first use.

    Of several processes that make it at once, the losers of the conditional write read the winner's.
    """
    uri = join(root_uri, "keys", "digest-key")
    try:
        key = store.read(uri)
    except ObjectMissing:
        key = secrets.token_bytes(KEY_BYTES)
        try:
            store.write(uri, key, if_absent=True)
        except ObjectExists:
            key = store.read(uri)
    if len(key) != KEY_BYTES:
        raise DataError(
            f"The digest key {uri} has {len(key)} bytes, expected {KEY_BYTES}.",
            remedy="Restore it from a backup: with another key, earlier removals are not recognised.",
        )
    return key


def keyed_digest(key: bytes, lines: Iterable[str]) -> str:
    """HMAC-SHA256 in hexadecimal over the lines, in the order given.

    Each line is preceded by its length in bytes, so that no two sequences run together into the same text.
    """
    mac = hmac.new(key, digestmod="sha256")
    for line in lines:
        data = line.encode()
        mac.update(len(data).to_bytes(8, "big"))
        mac.update(data)
    return mac.hexdigest()


def store_digest(store_root: str, lines: Iterable[str]) -> str:
    """`keyed_digest` under the secret of the store at `store_root`: for whatever says something of ids outside it."""
    return keyed_digest(digest_key(store_for(store_root), store_root), lines)
