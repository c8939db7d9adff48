"""What the documentation's own extensions make of docstrings, pages and commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield
    for name in [name for name in sys.modules if name == "tools" or name.startswith("tools.")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("||grad F_R(w*)|| of `theta` (d,)", r"\|\|grad F_R(w\*)\|\| of ``theta`` (d,)"),
        ("test_*: on the test set", r"test\_\*: on the test set"),
        ("NAME@alias", r"NAME\@alias"),
        ("``as it is*``", "``as it is*``"),
        ("snake_case stays", "snake_case stays"),
    ],
)
def test_markup_in_a_docstring_is_made_harmless(line: str, shown: str) -> None:
    from tools.docstrings import to_rst

    assert to_rst([line]) == [shown]


def test_a_formula_stands_as_it_is_and_sections_are_left_to_napoleon() -> None:
    from tools.docstrings import to_rst

    lines = ["The bound is", "", "    a * b", "", "so far.", "", "Args:", "    x: a * b", "", "    y: more"]
    assert to_rst(lines) == [
        *("The bound is", "", "::", "", "    a * b", "", "so far.", ""),
        *("Args:", r"    x: a \* b", "", "    y: more"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        "<img alt='' src='http://example/x.png'>",
        "@font-face { src: url(https://fonts.example/a.woff2) }",
        '@import "https://example/x.css";',
    ],
)
def test_what_would_be_loaded_from_elsewhere_is_found(text: str) -> None:
    from tools.offline import loads_from_elsewhere

    assert loads_from_elsewhere(text)


def test_links_and_our_own_files_load_nothing_from_elsewhere() -> None:
    from tools.offline import loads_from_elsewhere

    text = '<a href="https://example">x</a><script src="_static/x.js"></script><style>a{background:url(x.svg)}</style>'
    assert not loads_from_elsewhere(text)


def test_the_reference_shows_every_command_with_every_option() -> None:
    from tools.command_line import pages

    from oubli.cli.main import app

    text = "\n".join(pages("oubli", app))
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        assert f"## oubli {name}\n" in text
        for parameter in command.params:
            for option in parameter.opts:
                assert option == "--help" or f"`{option}`" in text or f"`{option.upper()}`" in text, (name, option)


def test_fields_carry_their_bounds_and_defaults() -> None:
    from tools.fields import rows

    from oubli.registry.training.training_record import ImageDecoder, TrainingRecord

    record = {row.name: row for row in rows(TrainingRecord)}
    assert record["l2"][1:3] == ("number; ≥ 0", "required")
    assert record["trained"][1:3] == ("list of text", "empty")
    assert record["decoder"].values == "`ImageDecoder`, `VectorDecoder`, `TokensDecoder`"
    assert record["dtype"][1:3] == ("`float32`, `float64`", "`float32`")
    assert all(row.meaning for row in rows(ImageDecoder))
