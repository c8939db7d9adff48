"""What the cases say together: means and spreads, and which bars are missed.

A group is (problem, size of the removal set, strategy), over its seeds.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from benchmarks.unlearning.removals import HALF_CLASS, SIZES
from benchmarks.unlearning.store import Line
from benchmarks.unlearning.strategies import BASELINES, Strategy

DISTANCE_BAR = 1e-3
DISTANCE_BAR_HALF_CLASS = 1e-2
GRADIENT_BAR = 1e-3
CONVEX_ACCURACY_BAR = 0.005
CONVEX_MEMBERSHIP_BAR = 0.005
NETWORK_ACCURACY_BAR = 0.01
NETWORK_MEMBERSHIP_BAR = 0.05

AVERAGED = (
    "divergence",
    "divergence_from_others",
    "floor",
    "original_divergence",
    "gradient_ratio",
    "distance",
    "test_accuracy",
    "test_accuracy_off",
    "membership_auc",
    "membership_off",
    "forget_loss",
    "forget_accuracy",
    "tug_of_war",
    "seconds",
    "retrain_seconds",
    "block_parameters",
    "damping",
    "m",
)

EPSILON = 1e-12
"""Differences of accuracies and areas are sums of fractions: one at a bar must not miss it by its last bit."""


def number(line: Line, key: str) -> float | None:
    """A finite figure of a line, None where it has none."""
    value = line.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def missed_by(line: Line) -> list[str]:
    """Which bars one case misses; a case that has no updated weights misses none."""
    if number(line, "divergence") is None:
        return []
    if line["part"] == "convex":
        distance = DISTANCE_BAR_HALF_CLASS if line["size"] == HALF_CLASS else DISTANCE_BAR
        bars = {
            "distance": distance,
            "gradient_ratio": GRADIENT_BAR,
            "test_accuracy_off": CONVEX_ACCURACY_BAR,
            "membership_off": CONVEX_MEMBERSHIP_BAR,
        }
    else:
        bars = {
            "divergence": number(line, "floor") or 0.0,
            "test_accuracy_off": NETWORK_ACCURACY_BAR,
            "membership_off": NETWORK_MEMBERSHIP_BAR,
        }
    return [key for key, bar in bars.items() if not _within(number(line, key), bar)]


def _within(value: float | None, bar: float) -> bool:
    """Whether a figure was measured, is finite, and does not exceed its bar."""
    return value is not None and value <= bar + EPSILON


def groups(lines: Iterable[Line]) -> list[dict[str, object]]:
    """One summary per group, in the grid's order."""
    members: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
    for line in lines:
        members[str(line["problem"]), str(line["size"]), str(line["strategy"])].append(line)
    ordered = sorted(members.items(), key=lambda item: _place(item[0]))
    return [_group(key, found) for key, found in ordered]


def _group(key: tuple[str, str, str], lines: Sequence[Line]) -> dict[str, object]:
    problem, size, strategy = key
    judged = [line for line in lines if "verdict" in line]
    accepted = [line for line in judged if line["verdict"] == "accepted"]
    reasons = Counter(str(reason) for line in judged for reason in _list(line["reasons"]))
    return {
        "part": lines[0]["part"],
        "problem": problem,
        "size": size,
        "strategy": strategy,
        "cases": len(lines),
        "updated": sum(number(line, "divergence") is not None for line in lines),
        "judged": len(judged),
        "accepted": len(accepted),
        "refused": len(judged) - len(accepted),
        "refused_share": 1 - len(accepted) / len(judged) if judged else None,
        "reasons": dict(sorted(reasons.items())),
        "meeting_bars": sum(not missed_by(line) for line in lines if number(line, "divergence") is not None),
        "accepted_missing_bars": sum(bool(missed_by(line)) for line in accepted),
        **{key: mean_and_spread(number(line, key) for line in lines) for key in AVERAGED},
        "retrained_test_accuracy": mean_and_spread(_retrained(line, "test_accuracy") for line in lines),
        "retrained_forget_loss": mean_and_spread(_retrained(line, "forget_loss") for line in lines),
    }


def _retrained(line: Line, key: str) -> float | None:
    found = line["retrained"]
    assert isinstance(found, Mapping)
    return number(found, key)


def mean_and_spread(values: Iterable[float | None]) -> list[float] | None:
    """Mean and standard deviation of those there are; None for none."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return [fmean(found), stdev(found) if len(found) > 1 else 0.0]


def gate_summary(lines: Sequence[Line]) -> dict[str, object]:
    """How the gate does on networks: what it refuses, and what it lets pass that misses a bar."""
    judged = [line for line in lines if line["part"] == "networks" and "verdict" in line]
    updated = [line for line in judged if number(line, "divergence") is not None]
    accepted = [line for line in updated if line["verdict"] == "accepted"]
    good = [line for line in updated if not missed_by(line)]
    reasons = Counter(str(reason) for line in judged for reason in _list(line["reasons"]))
    return {
        "judged": len(judged),
        "refused_share": share(len(judged) - len(accepted), len(judged)),
        "accepted": len(accepted),
        "accepted_missing_bars_share": share(sum(bool(missed_by(line)) for line in accepted), len(accepted)),
        "meeting_bars": len(good),
        "meeting_bars_refused_share": share(sum(line["verdict"] != "accepted" for line in good), len(good)),
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])),
    }


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def missed_bars(lines: Sequence[Line]) -> list[str]:
    """The bars as sentences, for the exit status.

    Convex: every case. Networks: over the accepted cases of a group, the mean divergence against the mean floor, and
    the mean differences from retrained; what the gate refuses is not registered and misses nothing.
    """
    found = []
    for line in lines:
        if line["part"] == "convex" and line["strategy"] == Strategy.TWO_STEPS.value:
            who = f"{line['problem']} m={line['size']} seed {line['seed']}"
            if number(line, "divergence") is None:
                found.append(f"{who}: no update ({', '.join(map(str, _list(line['reasons'])))})")
            found.extend(f"{who}: {bar} {line[bar]:.3g}" for bar in missed_by(line))
    baselines = {one.value for one in BASELINES}
    accepted: dict[tuple[str, str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line["part"] == "networks" and line["strategy"] not in baselines and line.get("verdict") == "accepted":
            accepted[str(line["problem"]), str(line["size"]), str(line["strategy"])].append(line)
    for (problem, size, strategy), members in sorted(accepted.items(), key=lambda item: _place(item[0])):
        means = {key: mean_and_spread(number(one, key) for one in members) for key in AVERAGED}
        missed = missed_by({"part": "networks", **{key: value[0] for key, value in means.items() if value}})
        found.extend(f"{problem} m={size} {strategy}, accepted: mean {bar} {_first(means[bar])}" for bar in missed)
    return found


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _first(value: list[float] | None) -> str:
    return "not measured" if value is None else f"{value[0]:.3g}"


def _place(key: tuple[str, str, str]) -> tuple[str, int, int]:
    problem, size, strategy = key
    strategies = [one.value for one in Strategy]
    return (
        problem,
        SIZES.index(size) if size in SIZES else len(SIZES),
        strategies.index(strategy) if strategy in strategies else len(strategies),
    )
