"""Docstrings are plain text with formulas; this makes reStructuredText of them, so that autodoc shows what was meant.

`name` becomes code, every other character that reStructuredText would take for markup is escaped, and an indented
block (a formula, a command, a drawing) is shown as it stands. Sections such as `Args:` are left to Napoleon.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

_CODE = re.compile(r"(``.+?``|`[^`]+`)")
_MARKUP = re.compile(r"([\\*|@])|(?<=\w)(_)(?!\w)")
_SECTIONS = {"args", "arguments", "attributes", "examples", "example", "note", "notes", "raises", "returns", "yields"}
_ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
_ENTRY = re.compile(r"\s*(?:[-*]|\d+\.)\s")


def escaped(text: str) -> str:
    """One line with markup made harmless and `code` made ``code``."""
    parts = []
    for part in _CODE.split(text):
        if part.startswith("``"):
            parts.append(part)
        elif part.startswith("`"):
            parts.append(f"`{part}`")
        else:
            parts.append(_MARKUP.sub(lambda match: "\\" + match.group(0), part))
    return "".join(parts)


def to_rst(lines: list[str]) -> list[str]:
    """The docstring's lines as reStructuredText."""
    out: list[str] = []
    section = literal = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        if line.strip().rstrip(":").lower() in _SECTIONS and line.rstrip().endswith(":") and not indented:
            section, literal = True, False
            out.append(line)
            continue
        if line.strip() and not indented:
            section = literal = False
        after_blank = number > 0 and not lines[number - 1].strip()
        if indented and after_blank and not section and not literal and not _ENTRY.match(line):
            literal = True
            out += ["::", ""]
        out.append(line if literal or not line.strip() else escaped(line))
    return out


def _process(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(textwrap.dedent("\n".join(lines)).split("\n"))


def _signature(
    _app: Any, _what: str, _name: str, _object: Any, _options: Any, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """An alias that is kept by its name shows as that name, also within a union."""
    return tuple(part and _ALIAS.sub(r"\1", part) for part in (arguments, returned))  # type: ignore[return-value]


def setup(app: Any) -> dict[str, bool]:
    # Before Napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", _process, priority=100)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
