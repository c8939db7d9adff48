"""What a method must reach on a cell, and which cells were run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.unlearning.problems import GRID, WHOLE_GRID

Row = Mapping[str, object]
"""A cell's or a method's figures, as they stand in the results."""

FLOORS, MEMBERSHIP, ACCURACY, RISE, FIT, COST, COST_SHORT = 1.25, 0.1, 0.01, 0.07, 0.03, 0.13, 0.25
"""The bars: KL on U in floors; membership inference, test accuracy and accuracy on R against retrained's; KL on R above
the floor's; cost as a share of a training of 30 epochs, and of one of up to 20."""

LONG = 20

BARS = {
    "KL on U": "floors",
    "membership": "membership_off",
    "test accuracy": "accuracy_test",
    "KL on R": "kl_R",
    "accuracy on R": "accuracy_R",
    "cost": "share",
}
"""Each bar and the figure that it is of."""

COMPARED = ("matching", "fine-tuning-x1", "fine-tuning-x2", "fine-tuning-anchored", "short-retraining")
"""Methods that are held to the bars."""

CELLS = (*GRID, *WHOLE_GRID)


def missed_bars(cell: Row, row: Row) -> list[str]:
    """Which bars a method misses on a cell, in their order."""
    floor, targets = mapping(cell["floor"]), mapping(cell["targets"])
    epochs = next(problem.recipe.epochs for problem, _ in CELLS if problem.name == cell["problem"])
    met = {
        "KL on U": number(row, "floors") <= FLOORS,
        "membership": abs(number(row, "membership_off")) <= MEMBERSHIP,
        "test accuracy": number(row, "accuracy_test") >= number(targets, "accuracy_test") - ACCURACY,
        "KL on R": number(row, "kl_R") <= number(floor, "R") + RISE,
        "accuracy on R": number(row, "accuracy_R") >= number(targets, "accuracy_R") - FIT,
        "cost": number(row, "share") <= (COST if epochs > LONG else COST_SHORT),
    }
    return [bar for bar in BARS if not met[bar]]


def reached(cells: Sequence[Row], rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """By method and bar, how many cells meet it; beside them `all bars`, and `cells`."""
    found = {}
    for method in COMPARED:
        own = {place_of(row): row for row in rows if row["method"] == method}
        missed = [missed_bars(cell, own[place_of(cell)]) for cell in cells if known(cell) and place_of(cell) in own]
        if missed:
            counts = {bar: sum(bar not in one for one in missed) for bar in BARS}
            found[method] = counts | {"all bars": sum(not one for one in missed), "cells": len(missed)}
    return found


def not_run(cells: Sequence[Row]) -> list[str]:
    """Cells of the grids that there are no figures of."""
    run = {place_of(cell) for cell in cells}
    return [f"{problem.name}: {kind.value}" for problem, kind in CELLS if (problem.name, kind.value) not in run]


def known(cell: Row) -> bool:
    """Whether the cell's problem is one of the grids', which have bars."""
    return any(problem.name == cell["problem"] for problem, _ in CELLS)


def place_of(row: Row) -> tuple[str, str]:
    return str(row["problem"]), str(row["set"])


def number(row: Row, key: str) -> float:
    """NaN, which meets no bar, where there is none."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) else float("nan")


def mapping(value: object) -> Row:
    assert isinstance(value, Mapping)
    return value
