"""The files of a dataset on this machine: found where they lie or downloaded, and checked against their digest."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path, PurePosixPath

from oubli.registry.errors import DigestMismatch, ObjectMissing, TrainingDataError
from oubli.registry.storage.digests import PARQUET_SUFFIX, dataset_digest, dataset_parts
from oubli.registry.storage.local_store import local_path
from oubli.registry.storage.scratch import scratch
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import scheme_of

UNKNOWN = "0" * 64
"""Stands for the digest of data that has not been digested yet."""

_lock = threading.Lock()
# Local copy by URI and digest.
_downloads: dict[tuple[str, str], Path] = {}


def local_root(uri: str, sha256: str) -> Path:
    """Where the training data lies on this machine: the file or folder itself, or a copy in the scratch folder.

    Args:
        uri: A Parquet file or a folder of parts, in any store. A remote one is downloaded once per process.
        sha256: The digest that it should have, or UNKNOWN. Copies are kept apart by it.

    Raises:
        ObjectMissing: There is no such data, or the folder holds no Parquet file.
        TrainingDataError: The name of a part would lead outside the folder.
        StoreError: The store cannot be read.
    """
    if scheme_of(uri) in ("", "file"):
        root = local_path(uri)
        if not root.exists():
            raise ObjectMissing(f"No training data at {uri}.", remedy="Check the URI in the training record.")
    else:
        root = _downloaded(uri, sha256)
    if not dataset_parts(root):
        raise ObjectMissing(
            f"The folder {uri} holds no {PARQUET_SUFFIX} file.", remedy="Check the URI in the training record."
        )
    return root


def verify_digest(uri: str, sha256: str, root: Path) -> None:
    """Check the digest of the training data that `local_root` found.

    Raises:
        DigestMismatch: The bytes are others than those recorded. A downloaded copy is dropped.
    """
    found = dataset_digest(root)
    if found == sha256:
        return
    with _lock:
        # The next attempt must fetch what is there then, not this copy.
        copy = _downloads.pop((uri, sha256), None)
    if copy is not None:
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink(missing_ok=True)
    raise DigestMismatch(
        f"The training data {uri} is not what the model was trained on: expected SHA-256 {sha256}, found {found}.",
        remedy="Restore the recorded bytes, or train again and register a new version.",
    )


def _downloaded(uri: str, sha256: str) -> Path:
    """A copy in the scratch folder, which every reader in this process shares."""
    target = scratch() / f"{sha256[:16]}-{os.urandom(4).hex()}"
    with _lock:
        # By digest too: other bytes under the same URI are another dataset.
        known = _downloads.get((uri, sha256))
        if known is not None and known.exists():
            return known
        store = store_for(uri)
        # A console's marker object may lie under the folder's own name.
        if not uri.endswith("/") and store.exists(uri):
            store.download(uri, target)
        else:
            prefix = uri.rstrip("/") + "/"
            for part in store.list(uri):
                steps = PurePosixPath(part.uri.removeprefix(prefix))
                if steps.is_absolute():
                    # s3://bucket/parts//x: joined to a folder, it would be written outside of it.
                    raise TrainingDataError(f"{part.uri} has an empty step in its name.", remedy="Rename the object.")
                if steps.suffix == PARQUET_SUFFIX:
                    store.download(part.uri, target / steps)
            if not target.exists():
                raise ObjectMissing(f"No training data at {uri}.", remedy="Check the URI in the training record.")
        _downloads[uri, sha256] = target
    return target
