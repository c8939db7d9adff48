"""Digests against their definitions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from oubli.registry.storage.digests import (
    bytes_digest,
    dataset_digest,
    dataset_parts,
    file_digest,
    json_digest,
)

# FIPS 180-4, example for the message "abc".
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


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
