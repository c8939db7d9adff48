"""Pictures of the results, SVG: distance to retraining against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.unlearning.bars import FLOORS, Row, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "matching": "#1f4e79",
    "matching-chain": "#5b8fc2",
    "fine-tuning-x1": "#e39a80",
    "fine-tuning-x2": "#c9522f",
    "fine-tuning-anchored": "#7a2a14",
    "short-retraining": "#000000",
    "newton": "#55b77e",
    "newton-8-steps": "#2c7a4b",
    "scrub": "#8055a3",
    "neggrad-plus": "#b89bd0",
    "salun": "#c9962c",
    "ssd": "#7a5a12",
}
"""The methods that are drawn."""

TICKS = (0.01, 0.03, 0.1, 0.3, 1)

STYLE = {"svg.hashsalt": "oubli", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
"""Text stays text, and a picture that is drawn again is the same file."""


def draw_all(results: Mapping[str, object], folder: Path) -> list[Path]:
    """One picture a problem: `unlearning-PROBLEM.svg`."""
    import matplotlib

    rows = results["rows"]
    assert isinstance(rows, list)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for problem in sorted({str(row["problem"]) for row in rows}):
        path = folder / f"unlearning-{problem}.svg"
        with matplotlib.rc_context(STYLE):
            figure = _picture(problem, [row for row in rows if row["problem"] == problem])
            figure.savefig(path, metadata={"Date": None})
        drawn.append(path)
    return drawn


def _picture(problem: str, rows: Sequence[Row]) -> Figure:
    """KL on U in floors, and KL on R, against the cost: a mark a method, the median over the removal sets, and a line
    from the least to the most."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    sets = len({str(row["set"]) for row in rows})
    for axes, key, shown in ((left, "floors", "removed samples, in floors"), (right, "kl_R", "retained samples, nats")):
        _marks(axes, rows, key)
        for method, dashes in (("nothing", ":"), ("retraining", "-")):
            own = [number(row, key) for row in rows if row["method"] == method]
            if own:
                axes.axhline(median(own), color="grey", lw=1, ls=dashes, label=method)
        axes.set(xscale="log", yscale="log", xlabel="cost, share of a training", ylabel=f"KL on {shown}")
        axes.set_xticks(TICKS, map(str, TICKS))
        axes.set_xticks([], minor=True)
    left.axhline(FLOORS, color="grey", lw=1, ls="--", label="the bar")
    left.set_title(f"{problem}, {sets} removal set{'s' * (sets > 1)}", fontsize=10, loc="left")
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _marks(axes: Axes, rows: Sequence[Row], key: str) -> None:
    for method, colour in COLOURS.items():
        own = [row for row in rows if row["method"] == method]
        if own:
            cost, found = median(number(row, "share") for row in own), [number(row, key) for row in own]
            axes.plot([cost, cost], [min(found), max(found)], color=colour, lw=1.2)
            axes.plot([cost], [median(found)], "o", color=colour, ms=5, label=method)
