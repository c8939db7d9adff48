"""Where objects live: one protocol, and the choice of an adapter by the URI's scheme.

    ObjectStore (protocol)
    ├── LocalStore    file:// URIs and plain local paths      (local_store.py)
    └── S3Store       s3://bucket/key                         (s3_store.py)

A *prefix* is a folder: `s3://bucket/inbox` holds `s3://bucket/inbox/a.csv` and not `s3://bucket/inbox-old/a.csv`.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from oubli.components.errors import ConfigurationError, ObjectMissing

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True, order=True)
class ObjectInfo:
    """One object of a listing. size: bytes."""

    uri: str
    size: int


class ObjectStore(Protocol):
    """Named byte objects. Every method raises a StoreError; what is written appears whole or not at all."""

    def read(self, uri: str) -> bytes:
        """The whole object. ObjectMissing where there is none."""
        ...

    def write(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        """Replaces the object, or with `if_absent` makes it and raises ObjectExists where one is in place.

        Of several writers with `if_absent`, exactly one succeeds.
        """
        ...

    def upload(self, path: Path, uri: str) -> None:
        """Copies a local file into the store, of any size, without holding it in memory."""
        ...

    def download(self, uri: str, path: Path) -> None:
        """Copies an object to a local file, which appears under its name only once it is complete."""
        ...

    def exists(self, uri: str) -> bool: ...

    def list(self, prefix_uri: str) -> Iterator[ObjectInfo]:
        """Every object under the folder, at any depth, sorted by URI; nothing where there is no such folder."""
        ...

    def move(self, source: str, target: str) -> None:
        """Copies, then deletes the source. A crash between the two leaves both, never neither."""
        ...

    def delete(self, uri: str) -> None:
        """Removes the object; one that is not there is no error, so that a retry succeeds."""
        ...


def scheme_of(uri: str) -> str:
    """The scheme in lower case; "" for a plain local path."""
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else ""


def store_for(uri: str) -> ObjectStore:
    """The adapter that serves this URI."""
    scheme = scheme_of(uri)
    if scheme in ("", "file"):
        from oubli.registry.local_store import LocalStore

        return LocalStore()
    if scheme == "s3":
        # Late, because boto3 takes a third of a second to import and local work does not need it.
        from oubli.registry.s3_store import S3Store

        return S3Store()
    raise ConfigurationError(
        f"No object store serves {uri!r}: unknown scheme {scheme!r}.",
        remedy="Use s3://bucket/key, file:///folder/name or a plain local path.",
    )


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts below it. A part may hold slashes, but no empty, '.' or '..' step."""
    joined = uri if uri in ("/", "file:///") else uri.rstrip("/")
    for part in parts:
        steps = part.split("/")
        if any(step in ("", ".", "..") for step in steps):
            raise ConfigurationError(
                f"{part!r} cannot be joined to {uri!r}: it has an empty, '.' or '..' step.",
                remedy="Give a relative path of plain names.",
            )
        text = quote(part) if scheme_of(uri) == "file" else part
        joined = f"{joined}{text}" if joined.endswith("/") else f"{joined}/{text}"
    return joined


@contextmanager
def open_local(uri: str) -> Iterator[Path]:
    """A local path with the object's bytes: the file itself, or a download that is removed afterwards."""
    store = store_for(uri)
    if scheme_of(uri) in ("", "file"):
        from oubli.registry.local_store import local_path

        path = local_path(uri)
        if not path.is_file():
            raise ObjectMissing(f"No file {uri}.", remedy="Check the path.")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="oubli-") as folder:
        # The name keeps its suffix, by which readers choose a format.
        path = Path(folder) / os.path.basename(uri)
        store.download(uri, path)
        yield path
