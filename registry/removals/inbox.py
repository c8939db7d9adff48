"""The inbox: removal files that wait for the next compliance run, and where they go afterwards.

    <store>/inbox/<model>/<file>                      waiting
    <store>/processed/<model>/<time>/outcome.json     how the removal ended
    <store>/processed/<model>/<time>/files/<file>     what it took
    <store>/rejected/<model>/<time>/<file>            unreadable or unresolvable, with <file>.error.txt beside it

A file is moved only after the outcome of its removal is recorded. A crash in between leaves it in the inbox, where the
next run sees that its samples are already removed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

from oubli.components.errors import OubliError
from oubli.registry.removals.outcome import RemovalOutcome
from oubli.registry.storage.local_store import local_path
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join, scheme_of

_INBOX = "inbox"


def waiting(store_root: str, models: Sequence[str] | None = None) -> dict[str, list[str]]:
    """The files that wait for a removal.

    Args:
        store_root: URI of the object store's root.
        models: Look into these models' inboxes only; empty or None for all.

    Returns:
        URIs of the files by model, both sorted.

    Raises:
        StoreError: The store cannot be read.
    """
    prefix = join(store_root, _INBOX)
    files: dict[str, list[str]] = defaultdict(list)
    for entry in store_for(prefix).list(prefix):
        steps = _below(entry.uri, prefix).split("/")
        # A key such as inbox//x or inbox/m/../x names no model or no file that could be moved.
        if len(steps) < 2 or any(step in ("", ".", "..") for step in steps):
            continue
        if not models or steps[0] in models:
            files[steps[0]].append(entry.uri)
    return dict(sorted(files.items()))


def settle(store_root: str, model: str, files: Sequence[str], outcome: RemovalOutcome) -> str:
    """Move the files of a finished removal to the processed prefix, with its outcome beside them.

    Args:
        store_root: URI of the object store's root.
        model: The model whose inbox held them.
        files: URIs of the files that the removal took.
        outcome: How it ended.

    Returns:
        URI of the folder that they are in now.

    Raises:
        StoreError: The store cannot be read or written.
    """
    folder = join(store_root, "processed", model, _now())
    store = store_for(folder)
    targets = {uri: join(folder, "files", _name(store_root, model, uri)) for uri in files}
    record = outcome.model_dump(mode="json") | {"files": sorted(targets.values())}
    store.write(join(folder, "outcome.json"), json.dumps(record, indent=2).encode())
    for uri, target in targets.items():
        # A file that is missing was moved by an earlier attempt, which then lost the store.
        if store.exists(uri):
            store.move(uri, target)
    return folder


def reject(store_root: str, model: str, uri: str, error: OubliError) -> str:
    """Move a file that cannot be used to the rejected prefix, with the reason beside it.

    Args:
        store_root: URI of the object store's root.
        model: The model whose inbox held it.
        uri: The file.
        error: Why it cannot be used.

    Returns:
        URI of the file now.

    Raises:
        StoreError: The store cannot be written.
    """
    target = join(store_root, "rejected", model, _now(), _name(store_root, model, uri))
    store = store_for(target)
    store.write(f"{target}.error.txt", f"{error.problem}\n{error.remedy}\n".encode())
    store.move(uri, target)
    return target


def _name(store_root: str, model: str, uri: str) -> str:
    """A file's path within the model's inbox, folders included, so that files of equal names stay apart."""
    return _below(uri, join(store_root, _INBOX, model))


def _below(uri: str, prefix: str) -> str:
    """The path of an object within a folder, in the form that `join` takes."""
    if scheme_of(uri) in ("", "file"):
        # As paths: a listing's URIs are absolute and escaped, whatever the prefix was.
        return local_path(uri).relative_to(local_path(prefix)).as_posix()
    return uri.removeprefix(f"{prefix}/")


def _now() -> str:
    # To the microsecond, so that no two runs share a folder.
    return datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S.%fZ")
