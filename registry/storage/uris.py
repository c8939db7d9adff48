"""URIs of objects: their scheme, and joining paths to them."""

from __future__ import annotations

import re
from urllib.parse import quote

from oubli.components.errors import ConfigurationError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(uri: str) -> str:
    """The scheme in lower case; "" for a plain local path."""
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else ""


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts below it.

    Args:
        uri: A URI or a plain path.
        parts: Relative paths, escaped as the URI's scheme needs. A part may hold slashes.

    Raises:
        ConfigurationError: A part has an empty, '.' or '..' step.
    """
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
