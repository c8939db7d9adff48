"""The protocol of object storage.

    ObjectStore
    ├── LocalStore    file:// URIs and plain local paths      (local_store.py)
    └── S3Store       s3://bucket/key                         (s3_store.py)

`stores.py` chooses by the URI's scheme. A *prefix* is a folder: `s3://bucket/inbox` holds `s3://bucket/inbox/a.csv` and
not `s3://bucket/inbox-old/a.csv`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, order=True)
class ObjectInfo:
    """One object of a listing."""

    uri: str
    size: int
    """Bytes."""


class ObjectStore(Protocol):
    """Named byte objects. What is written appears whole or not at all.

    Raises:
        StoreError: From every method, where the store does not do what was asked: StoreAccessDenied, StoreUnreachable,
            StoreFull, and what the methods name themselves.
        ConfigurationError: From every method, for a URI that is none of this store's.
    """

    def read(self, uri: str) -> bytes:
        """The whole object.

        Raises:
            ObjectMissing: There is none.
        """
        ...

    def write(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write the object, replacing what is there.

        Args:
            uri: The object's URI.
            data: Its bytes.
            if_absent: Write only where no object is in place. Of several such writers exactly one succeeds.

        Raises:
            ObjectExists: With `if_absent`, an object is in place.
        """
        ...

    def upload(self, path: Path, uri: str) -> None:
        """Copy a local file of any size into the store, without holding it in memory.

        Raises:
            ObjectMissing: There is no such file.
        """
        ...

    def download(self, uri: str, path: Path) -> None:
        """Copy an object to a local file, which appears under its name only once it is complete.

        Raises:
            ObjectMissing: There is no such object.
        """
        ...

    def exists(self, uri: str) -> bool:
        """Whether there is such an object."""
        ...

    def list(self, prefix_uri: str) -> Iterator[ObjectInfo]:
        """Every object under the folder, at any depth, sorted by URI; nothing where there is no such folder."""
        ...

    def move(self, source: str, target: str) -> None:
        """Copy, then delete the source. A crash between the two leaves both, never neither.

        Raises:
            ObjectMissing: There is no source.
        """
        ...

    def delete(self, uri: str) -> None:
        """Delete the object. Where there is none, nothing happens, so that a retry succeeds."""
        ...
