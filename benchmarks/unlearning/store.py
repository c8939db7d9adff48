"""Finished cases, one JSON line each, so that a run that was broken off goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Line = Mapping[str, object]


@dataclass
class CaseStore:
    """The lines of `path` by their key; a last line that was cut off is dropped."""

    path: Path
    _lines: dict[str, Line] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.is_file():
            return
        whole = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            whole.append(text)
            self._lines[line["key"]] = line
        # Written anew, so that the next line does not continue the one that was cut off.
        self.path.write_text("".join(f"{text}\n" for text in whole), encoding="utf-8")

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def get(self, key: str) -> Line | None:
        return self._lines.get(key)

    def add(self, line: Line) -> None:
        """Keep a line, which carries its `key`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._lines[str(line["key"])] = line
