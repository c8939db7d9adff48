"""Modules, functions and parameter lists stay small, or say why not.

A comment on the line of the `def`, or right above it and its decorators, lifts a limit: `# long: why` that of a
function's lines, `# many parameters: why` that of its parameters. A module has no such excuse: it is split.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("components", "registry", "flows", "cli")
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 350, 60, 8

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(source: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield node


def _lines(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _parameters(function: Function) -> int:
    given = function.args
    named = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(named[1:] if named[:1] in (["self"], ["cls"]) else named)


def _excused(function: Function, lines: list[str], marker: str) -> bool:
    """Whether the comment stands on the function's first line, or among the comments right above it."""
    first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
    near = [lines[function.lineno - 1]]
    for line in reversed(lines[: first - 1]):
        if not line.lstrip().startswith("#"):
            break
        near.append(line)
    return any(f"# {marker}: " in line for line in near)


def _complaints(source: str) -> list[str]:
    lines = source.splitlines()
    found = [f"has {len(lines)} lines"] if len(lines) > MODULE_LINES else []
    for function in _functions(source):
        if _lines(function) > FUNCTION_LINES and not _excused(function, lines, "long"):
            found.append(f"{function.name} has {_lines(function)} lines")
        if _parameters(function) > PARAMETERS and not _excused(function, lines, "many parameters"):
            found.append(f"{function.name} has {_parameters(function)} parameters")
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_is_too_large(layer: str) -> None:
    paths = sorted((ROOT / layer).rglob("*.py"))
    assert paths
    complaints = [
        f"{path.relative_to(ROOT)}: {complaint}"
        for path in paths
        for complaint in _complaints(path.read_text(encoding="utf-8"))
    ]
    assert not complaints, "\n" + "\n".join(complaints)


NINE = ", ".join("abcdefghi")
LONG = "\n".join(["def f():", *["    pass"] * FUNCTION_LINES])


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (f"def f({NINE}): ...", ["f has 9 parameters"]),
        (f"class C:\n    def f(self, {NINE[3:]}): ...", []),
        (f"class C:\n    async def f(self, *, {NINE}): ...", ["f has 9 parameters"]),
        (f"def f({NINE}): ...  # many parameters: each is another's", []),
        (f"# many parameters: each is another's\n@decorated\ndef f({NINE}): ...", []),
        (f"# long: a table\ndef f({NINE}): ...", ["f has 9 parameters"]),
        (LONG, ["f has 61 lines"]),
        (f"# long: a table\n{LONG}", []),
        (f"# many parameters: each is another's\n# long: a table\n{LONG}", []),
        (f"# long: a table\n\n{LONG}", ["f has 61 lines"]),
        ("\n" * 351, ["has 351 lines"]),
    ],
)
def test_nothing_too_large_is_overlooked(source: str, found: list[str]) -> None:
    assert _complaints(source) == found
