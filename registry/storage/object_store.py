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
