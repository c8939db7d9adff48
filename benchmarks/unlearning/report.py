"""The results as Markdown between two markers of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.unlearning.bars import (
    BARS,
    CELLS,
    COMPARED,
    Row,
    known,
    mapping,
    missed_bars,
    not_run,
    number,
    place_of,
    reached,
)
from benchmarks.unlearning.methods.catalogue import CHAIN, METHODS

START, END = "<!-- unlearning: figures -->", "<!-- unlearning: end of figures -->"

ORDER = [
    "retraining",
    METHODS[0].name,
    METHODS[1].name,
    CHAIN.name,
    *(method.name for method in METHODS[2:]),
]
SHORT_TABLE = ("nothing", "matching", "matching-chain", "fine-tuning-x1", "fine-tuning-x2", "fine-tuning-anchored")
SHORT_TABLE += ("short-retraining", "newton", "newton-8-steps", "scrub", "neggrad-plus", "salun", "ssd")

ROUNDING = 1e-12

FIGURES = {
    "floors": "KL U / floor",
    "kl_U": "KL U",
    "kl_R": "KL R",
    "kl_test": "KL test",
    "accuracy_U": "accuracy U",
    "accuracy_R": "R",
    "accuracy_test": "test",
    "membership_off": "membership",
    "margin_gap": "margin gap",
    "flips_R": "flips R",
}
"""Columns of a cell's table."""

RATES = {
    "on_fitted_cells": "cells of the fit",
    "on_other_cells": "other cells",
    "leave_one_cell_out": "each cell, fitted on the others",
}
ACCEPTED = (
    ("good", "good", "at least 90 %"),
    ("bad", "bad", ""),
    ("grossly_bad", "grossly bad", "at most 4 %"),
    ("nothing", "nothing, where that is not good", "none"),
    ("sabotaged", "saboteurs that are not good", "at most 5 %"),
    ("retrained", "retrained", ""),
)
"""What is counted, in words, and the bar."""


def update_page(path: Path, text: str) -> None:
    """Put `text` between the markers of a page; a page without them gets them at its end."""
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    if START not in page:
        page = f"{page.rstrip()}\n\n{START}\n{END}\n".lstrip()
    before, _, rest = page.partition(START)
    path.write_text(f"{before}{START}\n\n{text.strip()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def markdown(results: Mapping[str, object]) -> str:
    """The tables."""
    cells, rows, gate = (_sorted(_listed(results[name])) for name in ("cells", "rows", "gate"))
    parts = [_reached(cells, rows), _missed(cells, rows), _not_run(cells), _floors(cells, rows)]
    parts += [_rates(mapping(results["rates"])), _gate(cells, gate)]
    parts += [_cell(cell, [row for row in rows if place_of(row) == place_of(cell)]) for cell in cells]
    parts.append(", ".join(f"{name} {value}" for name, value in mapping(results["machine"]).items()))
    return "\n\n".join(part for part in parts if part)


def _reached(cells: Sequence[Row], rows: Sequence[Row]) -> str:
    names = (*BARS, "all bars", "cells")
    body = [[method, *(str(counts[name]) for name in names)] for method, counts in reached(cells, rows).items()]
    return "### How many cells meet each bar\n\n" + table(["method", *names], body) if body else ""


def _missed(cells: Sequence[Row], rows: Sequence[Row]) -> str:
    """Matching and its peers against the bars."""
    body = []
    for cell in cells:
        own = {str(row["method"]): row for row in rows if place_of(row) == place_of(cell)}
        missed = {name: missed_bars(cell, own[name]) for name in COMPARED if name in own and known(cell)}
        if missed:
            shown = [", ".join(missed[name]) or "all met" if name in missed else "" for name in COMPARED]
            body.append([str(cell["problem"]), str(cell["set"]), *shown])
    return "### Bars that are missed\n\n" + table(["problem", "set", *COMPARED], body) if body else ""


def _not_run(cells: Sequence[Row]) -> str:
    missing = not_run(cells) if any(map(known, cells)) else []
    return f"Not run: {'; '.join(missing)}." if missing else ""


def _floors(cells: Sequence[Row], rows: Sequence[Row]) -> str:
    """One line a method, one column a cell: KL on U in floors."""
    head = ["KL on U, in floors", *(f"{cell['problem']}, {cell['set']}" for cell in cells)]
    body = []
    for method in SHORT_TABLE:
        own = {place_of(row): row for row in rows if row["method"] == method}
        if own:
            body.append([method, *(_shown(own.get(place_of(cell), {}).get("floors")) for cell in cells)])
    body.append(["floor, nats", *(_shown(mapping(cell["floor"])["U"]) for cell in cells)])
    return "### Distance to retraining on the removed samples\n\n" + table(head, body)


def _rates(rates: Row) -> str:
    """How often the gate is wrong, beside the bars."""
    columns = [mapping(rates[name]) for name in RATES]
    if not any(number(mapping(one["good"]), "models") for one in columns):
        return ""
    body = []
    for name, shown, bar in ACCEPTED:
        counts = [mapping(one[name]) for one in columns]
        body.append([shown, *(f"{one['accepted']}/{one['models']}" for one in counts), bar])
    head = ["accepted", *(f"{shown}, {one['cells']}" for shown, one in zip(RATES.values(), columns, strict=True))]
    limits = ", ".join(f"{name} {value}" for name, value in mapping(rates["limits"]).items())
    note = f"The limits: {limits}. They were fitted on {rates['fitted_on']}."
    return f"### How often the gate is wrong\n\n{note}\n\n{table([*head, 'bar'], body)}"


def _gate(cells: Sequence[Row], rows: Sequence[Row]) -> str:
    """By cell: accepted, of how many."""
    body = []
    for cell in cells:
        own = [row for row in rows if place_of(row) == place_of(cell)]
        every = ("good", "bad", "grossly bad")
        counts = [_counted(own, "quality", one) for one in every]
        counts += [_counted(own, "method", one) for one in ("nothing", "matching")]
        counts += [_counted(own, "group", one) for one in ("saboteur", "reference")]
        body.append([str(cell["problem"]), str(cell["set"]), *counts])
    head = ["problem", "set", "good", "bad", "grossly bad", "nothing", "matching", "saboteurs", "retrained"]
    return "### What the gate accepts\n\n" + table(head, body) if body else ""


def _counted(rows: Sequence[Row], key: str, value: str) -> str:
    chosen = [row for row in rows if row[key] == value]
    return "/".join(str(sum(int(number(row, name)) for row in chosen)) for name in ("accepted", "models"))


def _cell(cell: Row, rows: Sequence[Row]) -> str:
    """One line a method; a figure that misses its bar is bold."""
    backdoor = any("backdoor" in row for row in rows)
    body = []
    for row in sorted(rows, key=lambda row: _rank(row["method"])):
        judged = known(cell) and row["method"] != "retraining"
        missed = {BARS[bar] for bar in missed_bars(cell, row)} if judged else set()
        shown = {key: f"**{_shown(row.get(key))}**" if key in missed else _shown(row.get(key)) for key in row}
        again = cell.get("relearning") if row["method"] == "retraining" else row.get("relearning")
        again = "> 30" if again is None else again
        line = [str(row["method"]), *(shown.get(key, "") for key in FIGURES)]
        line += ["" if again == "not measured" else str(again), shown.get("share", "")]
        failed = f", {row['failed']} failed" if row.get("failed") else ""
        line.append(f"{row['accepted']}/{row['models']}{failed}")
        body.append([*line, shown.get("backdoor", "")] if backdoor else line)
    head = ["method", *FIGURES.values(), "relearning", "cost", "accepted"]
    title = f"### {cell['problem']}: {cell['set']}, m = {cell['m']}"
    note = f"{cell['originals']} original and {cell['retrained']} retrained models."
    return f"{title}\n\n{note}\n\n{table([*head, 'backdoor'] if backdoor else head, body)}"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """In the grid's order."""
    order = [(problem.name, kind.value) for problem, kind in CELLS]
    return sorted(rows, key=lambda row: order.index(place_of(row)) if place_of(row) in order else len(order))


def _rank(method: object) -> int:
    return ORDER.index(str(method)) if method in ORDER else len(ORDER)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "0" if abs(value) < ROUNDING else f"{value:.3g}"
    return "" if value is None else str(value)


def _listed(value: object) -> list[Row]:
    assert isinstance(value, list)
    return value
