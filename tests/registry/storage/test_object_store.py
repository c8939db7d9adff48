"""What every object store promises, on each of them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import ObjectExists, ObjectMissing
from oubli.registry.storage.object_store import ObjectInfo
from oubli.registry.storage.stores import open_local, store_for
from oubli.registry.storage.uris import join

# Over two of the parts that S3 uploads are cut into, and not a multiple of one.
LARGE = 33 * (1 << 20) + 17


def test_writes_reads_and_replaces(root: str) -> None:
    store, uri = store_for(root), join(root, "deep", "er", "a.bin")
    assert not store.exists(uri)
    store.write(uri, b"one")
    assert store.exists(uri)
    assert store.read(uri) == b"one"
    store.write(uri, b"")
    assert store.read(uri) == b""


def test_a_missing_object_is_named(root: str, tmp_path: Path) -> None:
    store, uri = store_for(root), join(root, "none.bin")
    for attempt in (
        lambda: store.read(uri),
        lambda: store.download(uri, tmp_path / "copy"),
        lambda: store.move(uri, join(root, "other")),
    ):
        with pytest.raises(ObjectMissing, match=r"none\.bin"):
            attempt()
    assert list(tmp_path.glob("**/copy*")) == []


def test_uploading_a_file_that_is_not_there_names_it(root: str, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="nothing-here"):
        store_for(root).upload(tmp_path / "nothing-here", join(root, "a"))
    assert not store_for(root).exists(join(root, "a"))


def test_a_conditional_write_keeps_what_is_in_place(root: str) -> None:
    store, uri = store_for(root), join(root, "once")
    store.write(uri, b"first", if_absent=True)
    with pytest.raises(ObjectExists, match="once"):
        store.write(uri, b"second", if_absent=True)
    # Even the same bytes: who asks wants to know who was first.
    with pytest.raises(ObjectExists):
        store.write(uri, b"first", if_absent=True)
    assert store.read(uri) == b"first"
    assert [entry.uri for entry in store.list(root)] == [uri]


def test_one_of_several_conditional_writers_wins(root: str) -> None:
    store = store_for(root)
    for round_number in range(3):
        uri = join(root, f"race-{round_number}")
        start = threading.Barrier(8)
        won: list[bytes] = []
        lost: list[int] = []

        def write(number: int, uri: str = uri, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                store.write(uri, b"%d" % number, if_absent=True)
                won.append(b"%d" % number)  # noqa: B023
            except ObjectExists:
                lost.append(number)  # noqa: B023

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert len(lost) == 7
        assert store.read(uri) == won[0]


def test_lists_a_folder_and_not_its_namesakes(root: str) -> None:
    store = store_for(root)
    inbox = join(root, "inbox")
    names = ["b", "a/z", "a-1", "ü", "Z", "a/b/c"]
    for name in names:
        store.write(join(inbox, name), name.encode())
    store.write(join(root, "inbox-old", "x"), b"x")
    expected = sorted(ObjectInfo(join(inbox, name), len(name.encode())) for name in names)
    assert list(store.list(inbox)) == expected
    assert list(store.list(inbox + "/")) == expected
    assert [store.read(entry.uri).decode() for entry in expected] == [
        store.read(entry.uri).decode() for entry in store.list(inbox)
    ]
    assert list(store.list(join(root, "no-such-folder"))) == []


def test_moves_and_deletes(root: str) -> None:
    store = store_for(root)
    source, target = join(root, "inbox", "a"), join(root, "processed", "b")
    store.write(source, b"bytes")
    store.write(target, b"older")
    store.move(source, target)
    assert not store.exists(source)
    assert store.read(target) == b"bytes"
    store.move(target, target)
    assert store.read(target) == b"bytes"
    store.delete(target)
    store.delete(target)
    assert not store.exists(target)


def test_large_files_go_and_come_back(root: str, tmp_path: Path) -> None:
    store, uri = store_for(root), join(root, "large.bin")
    original, copy = tmp_path / "original", tmp_path / "new" / "copy"
    original.write_bytes(os.urandom(1 << 20) * 33 + b"x" * 17)
    store.upload(original, uri)
    assert [entry.size for entry in store.list(root)] == [LARGE]
    store.download(uri, copy)
    assert copy.read_bytes() == original.read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    with open_local(uri) as path:
        assert path.suffix == ".bin"
        assert path.stat().st_size == LARGE
    # A download goes; a local file was never ours to remove.
    assert path.exists() is not uri.startswith("s3:")


def test_a_download_replaces_an_older_file(root: str, tmp_path: Path) -> None:
    store, uri, copy = store_for(root), join(root, "a"), tmp_path / "copy"
    store.write(uri, b"new")
    copy.write_bytes(b"much older")
    store.download(uri, copy)
    assert copy.read_bytes() == b"new"


def test_open_local_names_a_missing_object(root: str) -> None:
    with pytest.raises(ObjectMissing, match="absent"), open_local(join(root, "absent.csv")):
        pass


def test_refuses_steps_out_of_the_root(root: str) -> None:
    store = store_for(root)
    for attempt in (store.read, store.exists, store.delete, lambda uri: list(store.list(uri))):
        with pytest.raises(ConfigurationError, match=r"'\.\.'"):
            attempt(root + "/../secret")
    with pytest.raises(ConfigurationError, match=r"'\.\.'"):
        store.write(root + "/../secret", b"")
    with pytest.raises(ConfigurationError, match=r"'\.\.'"):
        join(root, "../secret")


@pytest.mark.parametrize("part", ["", "/a", "a/", "a//b", ".", "a/../b"])
def test_join_takes_plain_relative_parts_only(part: str) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        join("/root", part)


@pytest.mark.parametrize(
    ("uri", "parts", "joined"),
    [
        ("s3://b", ("k",), "s3://b/k"),
        ("s3://b/p/", ("a b", "c#"), "s3://b/p/a b/c#"),
        ("file:///p", ("a b", "c%"), "file:///p/a%20b/c%25"),
        ("file:///", ("p",), "file:///p"),
        ("/", ("p", "q/r"), "/p/q/r"),
        ("folder", ("p",), "folder/p"),
    ],
)
def test_join(uri: str, parts: tuple[str, ...], joined: str) -> None:
    assert join(uri, *parts) == joined


@pytest.mark.parametrize(("uri", "scheme"), [("gs://bucket/a", "gs"), ("HTTPS://host/a", "https")])
def test_an_unknown_scheme_is_refused_with_the_known_ones(uri: str, scheme: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"'{scheme}'.*s3://bucket/key.*file://"):
        store_for(uri)
