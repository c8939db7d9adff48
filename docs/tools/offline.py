"""Fails the build where a page would load a script, a style, a font or a picture from another host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_LOADS = (
    re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"'](?:https?:)?//[^\"']*", re.IGNORECASE
    ),
    re.compile(r"<link\b[^>]*\bhref=[\"'](?:https?:)?//[^\"']*", re.IGNORECASE),
    re.compile(r"@import\s+(?:url\()?[\"']?(?:https?:)?//[^\"')]*|url\([\"']?(?:https?:)?//[^\"')]*", re.IGNORECASE),
)


def loads_from_elsewhere(text: str) -> list[str]:
    """What a page or style sheet would fetch from another host. Links that a reader follows do not count."""
    return [match for pattern in _LOADS for match in pattern.findall(text)]


def _check(app: Any, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    from sphinx.errors import SphinxError

    for path in sorted(Path(app.outdir).rglob("*")):
        if path.suffix in (".html", ".css") and (found := loads_from_elsewhere(path.read_text(encoding="utf-8"))):
            raise SphinxError(f"{path.relative_to(app.outdir)} would load from another host: {found[0]}")


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
