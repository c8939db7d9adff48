"""Keyed digests against their definition, and the race for the digest key."""

from __future__ import annotations

import hashlib
import hmac
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oubli.registry.errors import DataError
from oubli.registry.storage.keyed_digests import KEY_BYTES, digest_key, keyed_digest
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.binary(min_size=1), st.lists(texts))
def test_keyed_digests_are_hmacs_of_the_framed_lines(key: bytes, lines: list[str]) -> None:
    message = b"".join(len(line.encode()).to_bytes(8, "big") + line.encode() for line in lines)
    assert keyed_digest(key, lines) == hmac.new(key, message, hashlib.sha256).hexdigest()


def test_keyed_digests_tell_keys_and_lines_apart() -> None:
    key = bytes(KEY_BYTES)
    digests = [keyed_digest(key, lines) for lines in (["a", "b"], ["ab"], ["a\nb"], ["b", "a"], [])]
    digests.append(keyed_digest(b"\1" * KEY_BYTES, ["a", "b"]))
    assert len(set(digests)) == len(digests)


def test_the_digest_key_is_made_once(root: str) -> None:
    store = store_for(root)
    key = digest_key(store, root)
    assert len(key) == KEY_BYTES
    assert digest_key(store, root) == key
    assert store.read(join(root, "keys", "digest-key")) == key


def test_racing_makers_of_the_digest_key_agree(root: str) -> None:
    store = store_for(root)
    start = threading.Barrier(8)
    found: list[bytes] = []

    def make() -> None:
        start.wait()
        found.append(digest_key(store, root))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {store.read(join(root, "keys", "digest-key"))}


def test_a_damaged_digest_key_is_refused(tmp_path: Path) -> None:
    store = store_for(str(tmp_path))
    store.write(str(tmp_path / "keys" / "digest-key"), b"short")
    with pytest.raises(DataError, match=r"has 5 bytes, expected 32.*backup"):
        digest_key(store, str(tmp_path))
