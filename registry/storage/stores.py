"""The object store that serves a URI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import ObjectMissing
from oubli.registry.storage.local_store import LocalStore, local_path
from oubli.registry.storage.object_store import ObjectStore
from oubli.registry.storage.scratch import temporary_folder
from oubli.registry.storage.uris import scheme_of


def store_for(uri: str) -> ObjectStore:
    """The store that serves `uri`.

    Raises:
        ConfigurationError: No store serves this scheme.
    """
    scheme = scheme_of(uri)
    if scheme in ("", "file"):
        return LocalStore()
    if scheme == "s3":
        # Late, because boto3 takes a third of a second to import and local work does not need it.
        from oubli.registry.storage.s3_store import S3Store

        return S3Store()
    raise ConfigurationError(
        f"No object store serves {uri!r}: unknown scheme {scheme!r}.",
        remedy="Use s3://bucket/key, file:///folder/name or a plain local path.",
    )


@contextmanager
def open_local(uri: str) -> Iterator[Path]:
    """A local path with the object's bytes: the file itself, or a download that is removed afterwards.

    Raises:
        ObjectMissing: There is no such object.
        StoreError: The store cannot be read.
    """
    store = store_for(uri)
    if scheme_of(uri) in ("", "file"):
        path = local_path(uri)
        if not path.is_file():
            raise ObjectMissing(f"No file {uri}.", remedy="Check the path.")
        yield path
        return
    with temporary_folder() as folder:
        # The name keeps its suffix, by which readers choose a format.
        path = Path(folder) / os.path.basename(uri)
        store.download(uri, path)
        yield path
