"""Objects as files in local folders (or on any mounted file system)."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import ObjectExists, ObjectMissing, StoreAccessDenied, StoreError, StoreFull
from oubli.registry.storage.object_store import ObjectInfo
from oubli.registry.storage.uris import scheme_of

_COPY_BYTES = 1 << 20
# A file being written: hidden from listings, and left behind only by a killed process.
_PARTIAL = ".partial"
# Disk full, quota used up, or a file larger than the process or the file system may write.
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}


def local_path(uri: str) -> Path:
    """The absolute path of a file:// URI (percent-decoded) or a plain path.

    Raises:
        ConfigurationError: The URI has another scheme, another host, or a '..' step, which could leave the store's
            root.
    """
    scheme = scheme_of(uri)
    if scheme == "file":
        host, slash, rest = uri[len("file://") :].partition("/")
        if host not in ("", "localhost") or not slash:
            raise ConfigurationError(
                f"{uri!r} does not name a file of this machine.", remedy="Write file:///folder/name."
            )
        text = unquote("/" + rest)
    elif scheme == "":
        text = uri
    else:
        raise ConfigurationError(f"{uri!r} is not a local path.", remedy="Use file:///folder/name.")
    if not text or "\0" in text:
        raise ConfigurationError(f"{uri!r} is not a path.", remedy="Use file:///folder/name.")
    if ".." in text.split("/"):
        raise ConfigurationError(
            f"{uri!r} has a '..' step.", remedy="Give the path without it; it could leave the store's folder."
        )
    return Path(text).absolute()


def store_error(error: OSError, uri: str) -> StoreError:
    """The StoreError that says what `error` means for the object."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        return StoreFull(f"No space to write {uri}: {reason}.", remedy="Free space or raise the quota, then run again.")
    if error.errno in _NO_ACCESS:
        return StoreAccessDenied(
            f"Access to {uri} was refused: {reason}.", remedy="Check the folder's owner and permissions."
        )
    if error.errno == errno.ENOENT:
        return ObjectMissing(f"No file {uri}.", remedy="Check the path.")
    return StoreError(f"{uri}: {reason}.", remedy="Check the path and the file system.")


@contextmanager
def _mapped(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise store_error(error, uri) from error


def _sync_folder(folder: Path) -> None:
    """Make a new name in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, fill: Callable[[BinaryIO], None], *, if_absent: bool = False) -> None:
    """Fill a hidden file beside `path`, then give it its name in one step.

    Args:
        path: Where the file is to appear; missing folders are made.
        fill: Writes the contents to an open file.
        if_absent: Fail where `path` is in place.

    Raises:
        FileExistsError: With `if_absent`, `path` is in place.
        OSError: The file system refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{secrets.token_hex(8)}{_PARTIAL}"
    # Not tempfile: its files are readable by their owner alone, and workers of other users share the store.
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        if if_absent:
            # A link fails where the name is taken; a rename would replace it.
            os.link(partial, path)
        else:
            partial.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def _is_file(path: Path, uri: str) -> bool:
    # Not Path.is_file: Python 3.14 made it answer False where access is refused.
    with _mapped(uri):
        try:
            return stat.S_ISREG(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def _require_file(path: Path, uri: str) -> None:
    if not _is_file(path, uri):
        raise ObjectMissing(f"No file {uri}.", remedy="Check the path.")


def _copy_into(source: Path) -> Callable[[BinaryIO], None]:
    def fill(target: BinaryIO) -> None:
        with source.open("rb") as file:
            shutil.copyfileobj(file, target, _COPY_BYTES)

    return fill


class LocalStore:
    """ObjectStore on the local file system."""

    def read(self, uri: str) -> bytes:
        with _mapped(uri):
            return local_path(uri).read_bytes()

    def write(self, uri: str, data: bytes, *, if_absent: bool = False) -> None:
        def fill(file: BinaryIO) -> None:
            file.write(data)

        path = local_path(uri)
        try:
            with _mapped(uri):
                write_whole(path, fill, if_absent=if_absent)
        except StoreError as error:
            if if_absent and isinstance(error.__cause__, FileExistsError):
                raise ObjectExists(f"{uri} is already in place.", remedy="Read it, or delete it.") from error
            raise

    def upload(self, path: Path, uri: str) -> None:
        target = local_path(uri)
        _require_file(path, str(path))
        with _mapped(uri):
            write_whole(target, _copy_into(path))

    def download(self, uri: str, path: Path) -> None:
        source = local_path(uri)
        _require_file(source, uri)
        with _mapped(str(path)):
            write_whole(path, _copy_into(source))

    def exists(self, uri: str) -> bool:
        return _is_file(local_path(uri), uri)

    def list(self, prefix_uri: str) -> Iterator[ObjectInfo]:
        root = local_path(prefix_uri)
        quoted = scheme_of(prefix_uri) == "file"
        found = []
        with _mapped(prefix_uri):
            for folder, _, names in os.walk(root, onerror=_raise_unless_missing):
                for name in names:
                    if name.startswith(".") and name.endswith(_PARTIAL):
                        continue
                    path = os.path.join(folder, name)
                    uri = "file://" + quote(path) if quoted else path
                    # Another process may take a file away while this one lists.
                    with suppress(FileNotFoundError):
                        found.append(ObjectInfo(uri, os.stat(path).st_size))
        yield from sorted(found)

    def move(self, source: str, target: str) -> None:
        origin, path = local_path(source), local_path(target)
        _require_file(origin, source)
        with _mapped(target):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                origin.replace(path)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # Another file system: a rename cannot cross it.
                write_whole(path, _copy_into(origin))
                origin.unlink()

    def delete(self, uri: str) -> None:
        with _mapped(uri), suppress(FileNotFoundError):
            local_path(uri).unlink()


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
