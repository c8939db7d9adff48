"""Temporary folders, and what a killed process left of its own.

    <temporary files>/oubli-scratch-<random>/lock       held by the process that made the folder, as long as it lives
    <temporary files>/oubli-scratch-<random>/...        its downloads and half-written stages

The kernel releases the lock when its process ends, however it ends. Whoever can take the lock therefore knows that the
folder belongs to nobody any more, even where workers in separate containers share a folder for temporary files.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "oubli-scratch-"
_LOCK = "lock"

_guard = threading.Lock()
_scratch_of: dict[int, tuple[Path, int]] = {}


def scratch() -> Path:
    """A folder of this process's own, removed when the process exits normally, or by the next one if it is killed."""
    process = os.getpid()
    with _guard:
        if process not in _scratch_of:
            sweep()
            _scratch_of[process] = _locked_folder()
            atexit.register(_remove, process)
        return _scratch_of[process][0]


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder in the scratch folder, removed when the body ends."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        yield Path(folder)


def sweep() -> int:
    """Remove the scratch folders whose processes have ended.

    Returns:
        How many were removed.
    """
    swept = 0
    for lock_file in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        # Another user's folder, or one that is being removed at this moment.
        with suppress(OSError):
            lock = os.open(lock_file, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_file.parent, ignore_errors=True)
                swept += 1
            finally:
                os.close(lock)
    return swept


def _locked_folder() -> tuple[Path, int]:
    """A new folder and the open lock that keeps it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Another process's sweep may fall between any two of these lines, and take the folder for a dead one's.
        with suppress(FileNotFoundError):
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (folder / _LOCK).exists():
                return folder, lock
            os.close(lock)


def _remove(process: int) -> None:
    # A forked child inherits this registration, and must leave its parent's folder alone.
    if process == os.getpid():
        folder, lock = _scratch_of.pop(process)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
