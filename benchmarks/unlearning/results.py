"""The results as one JSON file: a row a method and cell, no figure of a single sample.

machine and commit of the report; not_run: cells of the grids without figures; bars_met: by method and bar, how many
cells meet it; rates: of the gate; cells: [{problem, set, m, originals, retrained, floor, targets, commits}], rows:
[{problem, set, method, group, models, ...mean over the originals}]; gate: [{problem, set, method, quality, models,
accepted}]
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.report import facts
from benchmarks.unlearning.bars import Row, not_run, place_of, reached
from benchmarks.unlearning.fitting import rates
from benchmarks.unlearning.gate import CellRecords, Judged, all_cells
from benchmarks.unlearning.store import Record, Store

Results = dict[str, object]

NOT_RECORDED = "not recorded"
"""The commit of records that do not say it."""


@dataclass(frozen=True)
class Gathered:
    """What one store says: cells, rows, the models that the gate judged, by cell, and how often it was wrong."""

    cells: list[Row]
    rows: list[Row]
    gate: list[Row]
    rates: Row


def gathered(store: Store) -> Gathered:
    """Everything that can be measured."""
    cells: list[Row] = []
    rows: list[Row] = []
    gate: list[Row] = []
    everything: list[Judged] = []
    for problem, kind, records in all_cells(store):
        place = {"problem": problem, "set": kind}
        judged = list(records.judged(problem, kind))
        cells.append(place | _cell(records))
        rows += [place | row for row in _rows(records, judged)]
        gate += [place | row for row in _gate_rows(judged)]
        everything += judged
    return Gathered(cells, rows, gate, rates(everything))


def _cell(records: CellRecords) -> Row:
    ruler = records.ruler
    return {
        "m": len(records.labels["U"]),
        "originals": len(records.originals),
        "retrained": len(records.retrained),
        "floor": ruler.floor,
        "targets": ruler.targets,
        "relearning": records.retrained[0].facts.get("relearning"),
        "commits": sorted({str(record.facts.get("commit", NOT_RECORDED)) for record in records.methods()}),
        "auditor_seconds": fmean(_number(record.facts.get("seconds")) for record in records.auditors),
    }


def _rows(records: CellRecords, judged: Sequence[Judged]) -> list[Row]:
    """A row a method, means over the originals; that of retraining is the floor."""
    seconds: dict[tuple[str, int], Record] = {
        (str(record.facts["method"]), int(str(record.facts["original"]))): record for record in records.methods()
    }
    by_method: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        by_method[one.method].append(one)
    rows: list[Row] = []
    failures = records.failures()
    for method, models in by_method.items():
        row: dict[str, object] = {"method": method, "group": models[0].group, "models": len(models)}
        row |= {key: fmean(one.figures[key] for one in models) for key in models[0].figures}
        row |= {"accepted": sum(one.accepted for one in models), "failed": failures[method]}
        if method == "retraining":
            row["share"] = 1.0
        else:
            own = [seconds[method, one.original].facts for one in models]
            row |= {key: fmean(_number(found.get(key)) for found in own) for key in ("seconds", "share")}
            row["relearning"] = next((found["relearning"] for found in own if "relearning" in found), "not measured")
            if "block" in own[0]:
                row["block"] = own[0]["block"]
        rows.append(row)
    return rows


def _gate_rows(judged: Iterable[Judged]) -> list[Row]:
    """How many models of each method, quality and verdict."""
    counts: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for one in judged:
        counts[one.method, one.group, one.quality].append(one.accepted)
    return [
        {"method": method, "group": group, "quality": quality, "models": len(found), "accepted": sum(found)}
        for (method, group, quality), found in counts.items()
    ]


def merged(before: Results | None, now: Gathered) -> Results:
    """The figures of now, and those of before for cells that the store does not hold; so for the gate's rates."""
    here = {place_of(cell) for cell in now.cells}

    def joined(name: str, own: list[Row]) -> list[Row]:
        return [*(row for row in _listed((before or {}).get(name)) if place_of(row) not in here), *own]

    cells, rows = joined("cells", now.cells), joined("rows", now.rows)
    return {
        "machine": facts(),
        "not_run": not_run(cells),
        "bars_met": reached(cells, rows),
        "rates": before["rates"] if before and len(cells) > len(now.cells) else now.rates,
        "cells": cells,
        "rows": rows,
        "gate": joined("gate", now.gate),
    }


def read_json(path: Path) -> Results | None:
    """None where there is no file, or one of another kind."""
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) and {"rates", "cells", "rows", "gate"} <= set(found) else None


def write_json(path: Path, results: Results) -> None:
    """One line a row: short, and a change of one shows as one."""
    parts = []
    for name, value in results.items():
        if isinstance(value, list) and value:
            rows = ",\n".join(json.dumps(_short(row)) for row in value)
            parts.append(f"{json.dumps(name)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(_short(value))}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def _short(value: object) -> object:
    """Four significant digits in every number that is not whole; null for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _short(part) for key, part in value.items()}
    return [_short(part) for part in value] if isinstance(value, list | tuple) else value


def _listed(value: object) -> list[Row]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float:
    return float(str(value)) if value is not None else math.nan
