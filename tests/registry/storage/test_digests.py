"""Digests against their definitions, and the race for the digest key."""

from __future__ import annotations

import hashlib
import hmac
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oubli.registry.errors import DataError
from oubli.registry.storage.digests import (
    KEY_BYTES,
    bytes_digest,
    dataset_digest,
    dataset_parts,
    digest_key,
    file_digest,
    json_digest,
    keyed_digest,
)
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

# FIPS 180-4, example for the message "abc".
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

texts = st.text(st.characters(exclude_categories=["Cs"]))


def test_bytes_and_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert bytes_digest(b"abc") == file_digest(path) == dataset_digest(path) == ABC
    path.write_bytes(bytes(3_000_001))
    assert file_digest(path) == hashlib.sha256(bytes(3_000_001)).hexdigest()


def test_a_folder_is_digested_by_its_sorted_parts(tmp_path: Path) -> None:
    # Sorted as whole paths: "-" comes before "/", which a sort by path components would turn round.
    for name in ("b.parquet", "a/x.parquet", "a-1.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"abc")
    (tmp_path / "_SUCCESS").write_bytes(b"")
    lines = f"a-1.parquet {ABC}\na/x.parquet {ABC}\nb.parquet {ABC}\n"
    assert dataset_digest(tmp_path) == hashlib.sha256(lines.encode()).hexdigest()
    assert [part.name for part in dataset_parts(tmp_path)] == ["a-1.parquet", "x.parquet", "b.parquet"]
    (tmp_path / "b.parquet").rename(tmp_path / "c.parquet")
    assert dataset_digest(tmp_path) != hashlib.sha256(lines.encode()).hexdigest()


def test_json_is_canonical() -> None:
    assert json_digest({"b": [1, 2.5], "a": "é"}) == json_digest({"a": "é", "b": [1, 2.5]})
    assert json_digest({"a": 1, "b": None}) == hashlib.sha256(b'{"a":1,"b":null}').hexdigest()
    assert json_digest([1, 2]) != json_digest([2, 1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_digest(float("nan"))


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
