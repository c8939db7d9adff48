"""What is particular to files: permissions, full disks, URIs of local paths."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import ObjectMissing, StoreAccessDenied, StoreError, StoreFull
from oubli.registry.storage.local_store import LocalStore, local_path, store_error

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Permissions do not bind root, so a test run by root steps down for a moment."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A real limit of the operating system on what this process may write to a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody but root may enter, holding one file."""
    if not os.geteuid():
        # pytest makes its folders for their owner alone, so they would be what refuses.
        for folder in [tmp_path, *tmp_path.parents][:3]:
            folder.chmod(0o755)
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "a").write_bytes(b"x")
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


def test_refused_access_names_the_object(closed: Path) -> None:
    store, uri = LocalStore(), str(closed / "a")
    with unprivileged():
        for attempt in (
            lambda: store.read(uri),
            lambda: store.write(uri, b""),
            lambda: store.delete(uri),
            lambda: store.exists(uri),
            lambda: store.move(uri, uri + "-moved"),
            lambda: list(store.list(str(closed))),
        ):
            with pytest.raises(StoreAccessDenied, match=f"{closed}.*permissions"):
                attempt()


def test_a_write_that_finds_no_space_leaves_the_old_bytes(tmp_path: Path) -> None:
    store, uri = LocalStore(), str(tmp_path / "a")
    store.write(uri, b"old")
    big = tmp_path / "big"
    big.write_bytes(bytes(100_000))
    with largest_file(50_000):
        with pytest.raises(StoreFull, match=f"{uri}.*Free space"):
            store.write(uri, bytes(100_000))
        with pytest.raises(StoreFull):
            store.upload(big, uri)
        with pytest.raises(StoreFull):
            store.download(str(big), Path(uri))
    assert store.read(uri) == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "big"]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreAccessDenied),
        (errno.ENOENT, ObjectMissing),
        (errno.EIO, StoreError),
    ],
)
def test_system_errors_become_ours(number: int, kind: type[StoreError]) -> None:
    error = store_error(OSError(number, os.strerror(number)), "/data/a")
    assert type(error) is kind
    assert "/data/a" in error.problem
    assert error.remedy


def test_a_folder_in_the_place_of_an_object_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="directory"):
        LocalStore().read(str(tmp_path))
    assert not LocalStore().exists(str(tmp_path))


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".0123456789abcdef.partial").write_bytes(b"half")
    (tmp_path / ".hidden").write_bytes(b"whole")
    assert [entry.uri for entry in LocalStore().list(str(tmp_path))] == [str(tmp_path / ".hidden")]


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        LocalStore().write(str(tmp_path / "a"), b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@given(st.lists(names, min_size=1, max_size=3))
def test_file_uris_and_paths_name_the_same_file(steps: list[str]) -> None:
    path = Path("/", *steps)
    assert local_path(path.as_uri()) == path
    assert local_path(str(path)) == path


def test_a_relative_path_is_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("a/b") == tmp_path / "a" / "b"
    assert local_path("file://localhost/a") == Path("/a")


@pytest.mark.parametrize("uri", ["file://host/a", "file://", "s3://b/k", "", "a\0b", "/a/../b", "file:///a/%2e%2e/b"])
def test_what_is_not_a_local_path_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=r"local path|not a path|name a file|step"):
        local_path(uri)
