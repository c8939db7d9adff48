"""The results as one JSON file, and as Markdown between two markers of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.report import facts
from benchmarks.unlearning.removals import SIZES
from benchmarks.unlearning.store import Line
from benchmarks.unlearning.strategies import Strategy
from benchmarks.unlearning.summary import gate_summary, groups, mean_and_spread, missed_bars, number

START, END = "<!-- unlearning: figures -->", "<!-- unlearning: end of figures -->"

GRID_PARTS = ("convex", "networks")


def write_json(path: Path, lines: Sequence[Line], run: Mapping[str, object]) -> dict[str, object]:
    """Everything in one file: the run's facts, the summaries, and every case."""
    grid = [line for line in lines if line["part"] in GRID_PARTS]
    found: dict[str, object] = {
        "machine": facts(),
        "run": dict(run),
        "missed_bars": [*missed_bars(grid), *_missed_elsewhere(lines)],
        "gate": gate_summary(grid),
        "groups": groups(grid),
        "removals": _removals(grid),
        "cases": [_own(line) for line in lines],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines_of(found), encoding="utf-8")
    return found


SHARED = (
    "m",
    "n",
    "d",
    "original",
    "retrained",
    "retrained_models",
    "retained_membership_auc",
    "original_divergence",
    "floor",
    "floor_membership",
    "floor_test_accuracy",
    "retrain_seconds",
    "train_gradient",
)
"""What all cases of one removal have in common."""

REMOVAL = ("part", "problem", "size", "seed")


def _removals(grid: Sequence[Line]) -> list[Line]:
    """Each removal once, with what its cases share."""
    first = {tuple(line[key] for key in REMOVAL): line for line in reversed(grid)}
    return [{key: line[key] for key in (*REMOVAL, *SHARED) if key in line} for line in reversed(first.values())]


def _own(line: Line) -> Line:
    """A case without what its removal says already."""
    left_out = SHARED if line["part"] in GRID_PARTS else ()
    return {key: value for key, value in line.items() if key not in left_out}


def _lines_of(results: Mapping[str, object]) -> str:
    """JSON with one line per case and per group: short, and a change of one shows as one."""
    parts = []
    for name, value in results.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(json.dumps(_short(one)) for one in value)
            parts.append(f"{json.dumps(name)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(_short(value), indent=1)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _short(value: object) -> object:
    """The value with six significant digits in every number that is not whole."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    return [_short(one) for one in value] if isinstance(value, list | tuple) else value


def _missed_elsewhere(lines: Sequence[Line]) -> list[str]:
    """Bars of the other parts, which carry their own verdict as `met`."""
    return [
        f"{line['part']} {line.get('problem', '')} {line['strategy']}".replace("  ", " ")
        for line in lines
        if line["part"] not in GRID_PARTS and line.get("met") is False
    ]


def update_page(path: Path, text: str) -> None:
    """Put `text` between the markers of a page; a page without them gets them at its end."""
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    if START not in page:
        page = f"{page.rstrip()}\n\n{START}\n{END}\n".lstrip()
    before, _, rest = page.partition(START)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{START}\n\n{text.strip()}\n\n{END}{after}", encoding="utf-8")


def markdown(results: Mapping[str, object]) -> str:
    """The tables of the results."""
    found = _listed(results["groups"])
    parts = [
        _convex_table([one for one in found if one["part"] == "convex"]),
        _network_tables([one for one in found if one["part"] == "networks"]),
        _gate(results["gate"]),
        _other_parts(_listed(results["cases"])),
        _missed(results["missed_bars"]),
        _machine(results["machine"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _convex_table(found: Sequence[Line]) -> str:
    rows = [one for one in found if one["strategy"] == Strategy.TWO_STEPS.value]
    if not rows:
        return ""
    head = [
        "problem",
        "m",
        "distance",
        "gradient ratio",
        "test accuracy off",
        "membership off",
        "seconds",
        "retraining",
    ]
    keys = ("distance", "gradient_ratio", "test_accuracy_off", "membership_off", "seconds", "retrain_seconds")
    body = [[str(one["problem"]), _size(one), *(_largest(one, key) for key in keys)] for one in rows]
    return "### Convex, two steps (mean and standard deviation)\n\n" + table(head, body)


def _network_tables(found: Sequence[Line]) -> str:
    parts = []
    for problem in sorted({str(one["problem"]) for one in found}):
        rows = [one for one in found if one["problem"] == problem]
        head = ["m", "strategy", "divergence", "floor", "gradient ratio", "test accuracy", "membership off", "ToW"]
        head += ["seconds", "refused", "accepted, missing a bar"]
        keys = ("divergence", "floor", "gradient_ratio", "test_accuracy", "membership_off", "tug_of_war", "seconds")
        body = [
            [
                _size(one),
                str(one["strategy"]),
                *(_largest(one, key) for key in keys),
                f"{one['refused']}/{one['judged']}" if one["judged"] else "",
                str(one["accepted_missing_bars"]) if one["accepted"] else "",
            ]
            for one in rows
        ]
        parts.append(f"### {problem}\n\n{table(head, body)}")
    return "\n\n".join(parts)


def _gate(gate: object) -> str:
    assert isinstance(gate, Mapping)
    if not gate["judged"]:
        return ""
    reasons = ", ".join(f"{name} {count}" for name, count in gate["reasons"].items())
    return (
        f"### The gate on networks\n\nOf {gate['judged']} updates it refused {_percent(gate['refused_share'])}. "
        f"Of the {gate['accepted']} accepted, {_percent(gate['accepted_missing_bars_share'])} miss a bar; of the "
        f"{gate['meeting_bars']} that meet all, it refused {_percent(gate['meeting_bars_refused_share'])}. "
        f"Reasons: {reasons or 'none'}."
    )


def _other_parts(lines: Sequence[Line]) -> str:
    parts = []
    blanket = [line for line in lines if line["part"] == "blanket"]
    if blanket:
        parts.append(_blanket_table(blanket))
    for part in ("cost", "determinism"):
        rows = [line for line in lines if line["part"] == part]
        if rows:
            columns = _listed_names(rows[0].get("columns"))
            body = [[_shown(line.get(name)) for name in columns] for line in rows]
            parts.append(f"### {part.capitalize()}\n\n{table(columns, body)}")
    return "\n\n".join(parts)


SHOWN_DAMPING = 3.0
SELECTIONS = ("l_foci", "top_gradient", "random")


def _blanket_table(lines: Sequence[Line]) -> str:
    """Means over the seeds at one damping; the JSON has the other."""
    chosen = [line for line in lines if line["damping_factor"] == SHOWN_DAMPING]
    head = ["problem", "m", "variant", "block"]
    head += [f"{figure}, {selection}" for figure in ("divergence", "forgotten") for selection in SELECTIONS]
    body = []
    for problem, size, variant in dict.fromkeys((one["problem"], one["size"], one["variant"]) for one in chosen):
        members = [one for one in chosen if (one["problem"], one["size"], one["variant"]) == (problem, size, variant)]
        row = [str(problem), str(size), str(variant), _mean_of(members, "block_share")]
        for figure in ("divergence", "forgotten"):
            for selection in SELECTIONS:
                # What moves all parameters is shown in the first column of the three.
                wanted = ("full", selection) if selection == SELECTIONS[0] else (selection,)
                row.append(_mean_of([one for one in members if one["selection"] in wanted], figure))
        body.append(row)
    return (
        f"### Blanket\n\nAt a damping of {SHOWN_DAMPING:g} mean diagonal curvatures, means over the seeds. "
        f"`all parameters` stands in the first of each three columns.\n\n{table(head, body)}"
    )


def _mean_of(lines: Sequence[Line], key: str) -> str:
    found = mean_and_spread(number(one, key) for one in lines)
    return "" if found is None else f"{found[0]:.2g}"


def _missed(missed: object) -> str:
    assert isinstance(missed, list)
    return "### Missed bars\n\n" + ("\n".join(f"- {one}" for one in missed) if missed else "None.")


def _machine(machine: object) -> str:
    assert isinstance(machine, Mapping)
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _size(one: Line) -> str:
    m = one["m"]
    assert isinstance(m, list)
    return str(one["size"]) if str(one["size"]) in SIZES[:4] else f"half a class ({m[0]:.0f})"


def _largest(one: Line, key: str) -> str:
    value = one[key]
    if not isinstance(value, list):
        return ""
    mean, spread = value
    return f"{mean:.2g}" if spread == 0 else f"{mean:.2g} ± {spread:.1g}"


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _percent(value: object) -> str:
    return f"{100 * value:.0f} %" if isinstance(value, int | float) else "none"


def _listed(value: object) -> list[Line]:
    assert isinstance(value, list)
    return value


def _listed_names(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
