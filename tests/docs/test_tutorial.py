"""The tutorial, run as a reader would: its files written, its commands and Python blocks run in the page's order.

A `text` block shows what the block before it prints. Numbers may differ from machine to machine; everything else may
not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
_FENCE = re.compile(r"^```(\S+)(?: python)?\n(?::caption: (\S+)\n\n)?(.*?)^```$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"\b[0-9a-f]{12}\b|\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_MARK = "<<< block >>>"


@dataclass
class Page:
    """A page's blocks. files: by name. exports: environment variables. code: Python blocks in order, each with what it
    is said to print, None where the page does not say."""

    files: dict[str, str] = field(default_factory=dict)
    exports: dict[str, str] = field(default_factory=dict)
    code: list[tuple[str, str | None]] = field(default_factory=list)


def read(text: str) -> Page:
    """The blocks of a page. A block of any other kind is an error: nothing on the page goes untried."""
    page = Page()
    for language, caption, body in _FENCE.findall(text):
        if caption:
            page.files[caption] = body
        elif language == "sh":
            page.exports |= dict(re.fullmatch(r"export (\w+)=(.*)", line).groups() for line in body.splitlines())
        elif language == "python":
            page.code.append((body, None))
        elif language == "text":
            code, shown = page.code.pop()
            assert shown is None, "two text blocks in a row"
            page.code.append((code, body))
        else:
            raise AssertionError(f"a block that this test does not run: {language}")
    return page


def without_numbers(text: str) -> str:
    return re.sub(r" +", " ", _NUMBER.sub("#", text)).strip()


@pytest.mark.e2e
def test_every_block_runs_and_prints_what_the_page_shows(tmp_path: Path) -> None:
    page = read(TUTORIAL.read_text(encoding="utf-8"))
    assert page.files
    assert len(page.code) > 5
    for name, source in page.files.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    script = "".join(f"print({_MARK!r})\n{code}" for code, _ in page.code)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OUBLI_", "MLFLOW_TR"))}
    exports = {name: value.replace("$PWD", str(tmp_path)) for name, value in page.exports.items()}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        # One thread: more only wait for each other where tests share the processors.
        env=environment | exports | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.split(f"{_MARK}\n")[1:]
    assert len(printed) == len(page.code)
    for (code, shown), output in zip(page.code, printed, strict=True):
        assert without_numbers(output) == without_numbers(shown or ""), code


def test_a_block_that_is_not_run_is_an_error() -> None:
    with pytest.raises(AssertionError, match="does not run: console"):
        read("```console\n$ rm -rf /\n```\n")


def test_numbers_alone_may_differ() -> None:
    assert without_numbers("loss  0.053\n") == without_numbers("loss 1.2e-05")
    assert without_numbers("registered") != without_numbers("refused")
