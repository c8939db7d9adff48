"""The tables of docs/explanation/blanket.md, from the JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Line = Mapping[str, Any]
START, END = "<!-- tables -->", "<!-- end of tables -->"

MOST_DRIFT = 0.04
"""Nats of KL from the original on retained samples: a third more than matching on all parameters has at m = 100."""

DIVERGED = 1.0
"""Nats of drift in any case of a setting."""

WAYS = {
    "nothing": "nothing",
    "loss/all slices": "**L-FOCI as published: loss, all slices**",
    "loss/without output layer": "loss, without the output layer",
    "loss/layer by layer": "loss, layer by layer",
    "margin/all slices": "margin, all slices",
    "alignment/all slices": "own gradient, all slices",
    "alignment/layer by layer": "own gradient, layer by layer",
    "feature/all slices": "a feature's distance, all slices",
    "output layer": "the output layer",
    "random, as published": "random, as large as published",
    "top gradient, as published": "top gradient, as large as published",
    "random, as layer by layer": "random, as large as layer by layer",
    "top gradient, as layer by layer": "top gradient, as large as layer by layer",
    "all": "**all parameters**",
}
RESPONSES = {"loss": "loss", "margin": "margin", "alignment": "own gradient", "feature": "a feature's distance"}


def write_page(results: Line, page: Path) -> None:
    """Put the tables in their place in the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{START}\n\n{tables(results)}\n\n{END}{after}", encoding="utf-8")


def tables(results: Line) -> str:
    """Markdown: what each block does where it moves, and what selections say."""
    return f"{_moves(results['moves'])}\n\n{_evidence(results['evidence'])}"


def _moves(moves: Sequence[Line]) -> str:
    sizes = sorted({line["m"] for line in moves})
    steps = [(step, m) for step in ("matching", "newton") for m in sizes]
    floors = [_spread([line["floor"] for line in moves if line["m"] == m and line["way"] == "nothing"]) for m in sizes]
    full = max(line["parameters"] for line in moves)
    rows = [
        ["what moves", "share", *(f"matching, m = {m}" for m in sizes), *(f"Newton, m = {m}" for m in sizes)],
        ["---"] * (2 + len(steps)),
        ["floor: another retrained model", "", *floors, *[""] * len(sizes)],
    ]
    for way, name in WAYS.items():
        own = [line for line in moves if line["way"] == way]
        if not own:
            continue
        share = 100 * np.mean([line["parameters"] for line in own if line["m"] == sizes[0]]) / full
        rows.append([name, f"{share:.1f} %", *(_cell(own, step, m) for step, m in steps)])
    return _markdown(rows)


def _cell(own: Sequence[Line], step: str, m: int) -> str:
    """KL with its spread / drift in thousandths / points of test accuracy, at the setting that `best` takes."""
    tried = [line for line in own if (line["step"], line["m"]) == (step, m)]
    settings = sorted({line["setting"] for line in tried})
    lines = best([[line for line in tried if line["setting"] == setting] for setting in settings])
    if not lines:
        return "diverges" if tried else ""
    drift, accuracy = (float(np.mean([line[name] for line in lines])) for name in ("drift", "accuracy_change"))
    return f"{_spread([line['kl_removed'] for line in lines])} / {1000 * drift:.1f} / {100 * accuracy:+.1f}"


def best(settings: Sequence[Sequence[Line]]) -> Sequence[Line]:
    """The setting with the lowest mean KL among those whose mean drift is at most MOST_DRIFT.

    Where all drift further, that with the least drift; none where each diverges somewhere.
    """
    whole = [lines for lines in settings if all(line.get("drift", math.inf) <= DIVERGED for line in lines)]
    if not whole:
        return []

    def mean(lines: Sequence[Line], name: str) -> float:
        return float(np.mean([line[name] for line in lines]))

    kept = [lines for lines in whole if mean(lines, "drift") <= MOST_DRIFT]
    if kept:
        return min(kept, key=lambda lines: mean(lines, "kl_removed"))
    return min(whole, key=lambda lines: mean(lines, "drift"))


def _spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{deviation}"


def _evidence(rows: Sequence[Line]) -> str:
    heads = [
        "response, candidates", "slices", "of the output layer", "same sample, other seed", "other original",
        "other sample", "removed against retained: difference (p)",
    ]  # fmt: skip
    table = [heads, ["---"] * len(heads)]
    for row in rows:
        response, candidates = row["name"].split("/")
        differences = ", ".join(f"{found:+.2f} ({p:.2g})" for found, p in row["removed_against_retained"])
        output, seeds, others = (np.mean(row[name]) for name in ("of_output_layer", "seeds", "others"))
        figures = [f"{100 * output:.0f} %", f"{seeds:.2f}", f"{row['originals']:.2f}", f"{others:.2f}", differences]
        table.append([f"{RESPONSES[response]}, {candidates}", f"{np.mean(row['slices']):.1f}", *figures])
    return _markdown(table)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
