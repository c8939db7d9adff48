"""Digests of identifiers under a secret of the store.

A plain digest of identifiers hides nothing: ids can be guessed, and each guess checked. Digests of ids that leave the
object store (MLflow shows them) are therefore HMACs under a key that stays in it.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable

from oubli.registry.errors import DataError, ObjectExists, ObjectMissing
from oubli.registry.storage.object_store import ObjectStore
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

KEY_BYTES = 32
"""As long as the hash's output (RFC 2104, section 3)."""

# As much of a digest as a seed holds.
_SEED_DIGITS = 15


def digest_key(store: ObjectStore, root_uri: str) -> bytes:
    """The store's secret for keyed digests, made on first use.

    Of several processes that make it at once, the losers of the conditional write read the winner's.

    Args:
        store: The store that serves `root_uri`.
        root_uri: The store's root; the key lies below it.

    Returns:
        KEY_BYTES random bytes.

    Raises:
        DataError: The stored key has another length.
        StoreError: The store cannot be read or written.
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

    Args:
        key: The secret, of KEY_BYTES bytes.
        lines: Any texts; their order counts.
    """
    mac = hmac.new(key, digestmod="sha256")
    for line in lines:
        data = line.encode()
        mac.update(len(data).to_bytes(8, "big"))
        mac.update(data)
    return mac.hexdigest()


def store_digest(store_root: str, lines: Iterable[str]) -> str:
    """`keyed_digest` under the secret of the store at `store_root`: for whatever tells of ids outside that store.

    Raises:
        DataError: The stored key is damaged.
        StoreError: The store cannot be read or written.
    """
    return keyed_digest(digest_key(store_for(store_root), store_root), lines)


def store_seed(store_root: str, lines: Iterable[str]) -> int:
    """A seed under the secret of the store at `store_root`: for draws that repeat, and that nobody outside can guess.

    Raises:
        DataError: The stored key is damaged.
        StoreError: The store cannot be read or written.
    """
    return int(store_digest(store_root, lines)[:_SEED_DIGITS], 16)
