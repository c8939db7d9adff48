"""Pictures of the results, SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.unlearning.removals import HALF_CLASS, SIZES
from benchmarks.unlearning.store import Line
from benchmarks.unlearning.strategies import Strategy
from benchmarks.unlearning.summary import DISTANCE_BAR, DISTANCE_BAR_HALF_CLASS, mean_and_spread, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {
    Strategy.NOTHING: "#888888",
    Strategy.FINE_TUNING: "#555555",
    Strategy.GRADIENT_ASCENT: "#bbbbbb",
    Strategy.L_FOCI: "#1f4e79",
    Strategy.L_FOCI_BATCH: "#7ba3cc",
    Strategy.TOP_GRADIENT: "#b5482a",
    Strategy.RANDOM: "#e0a890",
    Strategy.FULL_GGN: "#2c7a4b",
    Strategy.FULL_KFAC: "#55b77e",
    Strategy.FULL_EKFAC: "#a5dcbb",
    Strategy.FULL_FISHER: "#8055a3",
    Strategy.FULL_SAMPLED_FISHER: "#b89bd0",
    Strategy.FULL_FINITE_DIFFERENCE: "#c9962c",
    Strategy.FULL_HESSIAN: "#7a5a12",
    Strategy.FROM_SNAPSHOT: "#12a5a5",
    Strategy.ONE_AT_A_TIME: "#000000",
}


def draw_all(results: Mapping[str, object], folder: Path) -> list[Path]:
    """Every picture that there are figures for."""
    groups, cases = _listed(results["groups"]), _listed(results["cases"])
    networks = [one for one in groups if one["part"] == "networks"]
    convex = [one for one in groups if one["part"] == "convex" and one["strategy"] == Strategy.TWO_STEPS.value]
    drawn = []
    if networks:
        drawn.append(_save(_divergences(networks), folder / "unlearning-networks.svg"))
    if convex:
        drawn.append(_save(_distances(convex), folder / "unlearning-convex.svg"))
    blanket = [one for one in cases if one["part"] == "blanket"]
    if blanket:
        drawn.append(_save(_blanket(blanket), folder / "unlearning-blanket.svg"))
    cost = [one for one in cases if one["part"] == "cost"]
    if cost:
        drawn.append(_save(_cost(cost), folder / "unlearning-cost.svg"))
    return drawn


def _divergences(groups: Sequence[Line]) -> Figure:
    """Per network: the divergence from retrained by m and strategy, in units of the floor."""
    problems = sorted({str(one["problem"]) for one in groups})
    figure = _figure(8, 3.2 * len(problems))
    for axes, problem in zip(_column(figure, len(problems)), problems, strict=True):
        own = [one for one in groups if one["problem"] == problem]
        sizes = [size for size in SIZES if any(one["size"] == size for one in own)]
        strategies = [one for one in COLORS if any(group["strategy"] == one.value for group in own)]
        width = 0.8 / len(strategies)
        for place, strategy in enumerate(strategies):
            heights = [_in_floors(own, size, strategy.value) for size in sizes]
            at = [number + (place - len(strategies) / 2 + 0.5) * width for number in range(len(sizes))]
            axes.bar(at, heights, width, color=COLORS[strategy], label=strategy.value)
        axes.axhline(1.0, color="black", lw=0.8, ls="--")
        axes.set_yscale("log")
        axes.set_xticks(range(len(sizes)), [_size(size) for size in sizes])
        axes.set_title(problem, fontsize=10)
        axes.set_ylabel("divergence / floor")
    # Not every network has every strategy.
    handles = {name: one for axes in figure.axes for one, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", fontsize=7, ncols=5, frameon=False)
    figure.axes[-1].set_xlabel("removed samples m")
    return figure


def _in_floors(groups: Sequence[Line], size: str, strategy: str) -> float:
    for one in groups:
        divergence, floor = one["divergence"], one["floor"]
        if (
            one["size"] == size
            and one["strategy"] == strategy
            and isinstance(divergence, list)
            and isinstance(floor, list)
        ):
            return float(divergence[0] / floor[0]) if floor[0] > 0 else float("nan")
    return float("nan")


def _distances(groups: Sequence[Line]) -> Figure:
    """Convex: the distance to the retrained weights by m."""
    figure = _figure(7, 4)
    axes = _column(figure, 1)[0]
    for problem in sorted({str(one["problem"]) for one in groups}):
        own = {str(one["size"]): one["distance"] for one in groups if one["problem"] == problem}
        means = {size: float(value[0]) for size in SIZES if isinstance(value := own.get(size), list)}
        axes.plot([SIZES.index(size) for size in means], list(means.values()), "o-", label=problem)
    axes.hlines(DISTANCE_BAR, -0.3, 3.5, color="black", lw=0.8, ls="--")
    axes.hlines(DISTANCE_BAR_HALF_CLASS, 3.5, 4.3, color="black", lw=0.8, ls="--")
    axes.set_yscale("log")
    axes.set_xticks(range(len(SIZES)), [_size(size) for size in SIZES])
    axes.set_xlabel("removed samples m")
    axes.set_ylabel("distance to retrained / original's")
    axes.legend(fontsize=8, frameon=False)
    return figure


def _blanket(lines: Sequence[Line]) -> Figure:
    """What a block forgets against what it does to the retained gradient, over the seeds of a variant."""
    problems = sorted({(str(one["problem"]), str(one["size"])) for one in lines})
    figure = _figure(8, 3.4 * len(problems))
    colors = {"l_foci": "#1f4e79", "top_gradient": "#b5482a", "random": "#e0a890", "full": "#2c7a4b"}
    for axes, (problem, size) in zip(_column(figure, len(problems)), problems, strict=True):
        own = [one for one in lines if one["problem"] == problem and one["size"] == size]
        for selection, color in colors.items():
            marks = sorted({(str(one["variant"]), float(str(one["damping_factor"]))) for one in own})
            points = []
            for variant, damping in marks:
                members = [
                    one
                    for one in own
                    if (one["variant"], one["damping_factor"], one["selection"]) == (variant, damping, selection)
                ]
                forgotten = mean_and_spread(number(one, "forgotten") for one in members)
                gradient = mean_and_spread(number(one, "gradient_ratio") for one in members)
                if forgotten and gradient:
                    points.append((forgotten[0], gradient[0]))
            axes.scatter([x for x, _ in points], [y for _, y in points], s=18, color=color, label=selection)
        axes.axhline(1.0, color="black", lw=0.8, ls="--")
        axes.set_title(f"{problem}, m = {size}", fontsize=10)
        axes.set_ylabel("retained gradient, after / before")
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.axes[-1].set_xlabel("forgotten (1: as much as retraining)")
    return figure


def _cost(lines: Sequence[Line]) -> Figure:
    figure = _figure(7, 3.2)
    axes = _column(figure, 1)[0]
    names = [str(one["strategy"]) for one in lines]
    axes.barh(names, [number(one, "seconds") or 0.0 for one in lines], color="#1f4e79")
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.invert_yaxis()
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _column(figure: Figure, count: int) -> list[Axes]:
    return [figure.add_subplot(count, 1, place + 1) for place in range(count)]


def _save(figure: Figure, path: Path) -> Path:
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    # Without these the file differs each time it is drawn.
    with matplotlib.rc_context({"svg.hashsalt": "oubli"}):
        figure.savefig(path, metadata={"Date": None})
    return path


def _size(size: str) -> str:
    return "half a class" if size == HALF_CLASS else size


def _listed(value: object) -> list[Line]:
    assert isinstance(value, list)
    return value
