"""SHA-256 of bytes, files, folders and JSON values, in hexadecimal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

PARQUET_SUFFIX = ".parquet"


def bytes_digest(data: bytes) -> str:
    """SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dataset_parts(path: Path) -> tuple[Path, ...]:
    """The file itself, or every Parquet file below the folder, sorted by relative path."""
    if not path.is_dir():
        return (path,)
    return tuple(sorted(path.rglob(f"*{PARQUET_SUFFIX}"), key=lambda part: part.relative_to(path).as_posix()))


def dataset_digest(path: Path) -> str:
    """A file's SHA-256; for a folder, SHA-256 over sorted lines "relative-path sha256\\n" of its Parquet parts."""
    if not path.is_dir():
        return file_digest(path)
    lines = (f"{part.relative_to(path).as_posix()} {file_digest(part)}\n" for part in dataset_parts(path))
    return bytes_digest("".join(lines).encode())


def json_digest(value: object) -> str:
    """SHA-256 of the value's canonical JSON: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: The value holds NaN or an infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return bytes_digest(text.encode())
