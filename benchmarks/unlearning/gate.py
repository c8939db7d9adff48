"""The acceptance statistics of every recorded model, beside what it deserves: what the gate's limits are fitted on.

python -m benchmarks.unlearning.gate [FOLDER]       one JSON line a model, on standard output
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.unlearning.measures import Outputs, Quality, Ruler
from benchmarks.unlearning.problems import RemovalKind
from benchmarks.unlearning.store import Cell, Record, Store
from oubli.components.gate.acceptance import AcceptanceStatistics, acceptance_statistics
from oubli.components.gate.acceptance_rules import accept
from oubli.components.gate.ranks import OnBoth
from oubli.components.model.losses import Loss, cross_entropy
from oubli.components.removal.targets import calibrate

LEAST_RETRAINED = 3


@dataclass(frozen=True)
class Judged:
    """One model of one cell: what the gate is given, and what the model is.

    group: own, peer, saboteur, or reference for a retrained model; statistics: None where outputs are not finite.
    """

    problem: str
    kind: str
    method: str
    group: str
    original: int
    statistics: AcceptanceStatistics | None
    quality: str
    figures: dict[str, float]

    @property
    def accepted(self) -> bool:
        return self.statistics is not None and accept(self.statistics).accepted

    @property
    def nothing_to_forget(self) -> bool:
        return self.statistics is not None and accept(self.statistics).nothing_to_forget


@dataclass(frozen=True)
class CellRecords:
    """All that is known of a cell."""

    cell: Cell
    labels: dict[str, Tensor]
    originals: dict[int, Record]
    retrained: list[Record]
    auditors: list[Record]
    ruler: Ruler

    @classmethod
    def of(cls, cell: Cell) -> CellRecords | None:
        """None where reference models or auditors are missing still."""
        names = cell.names()

        def those(prefix: str) -> dict[int, Record]:
            numbers = sorted(int(name.removeprefix(prefix)) for name in names if name.startswith(prefix))
            return {number: record for number in numbers if (record := cell.read(f"{prefix}{number}")) is not None}

        originals, retrained, auditors = those("original-"), those("retrained-"), those("auditor-")
        if not originals or len(retrained) < LEAST_RETRAINED or len(auditors) < 2:
            return None
        labels = cell.labels()
        ruler = Ruler([outputs_of(record) for record in retrained.values()], labels)
        return cls(cell, labels, originals, list(retrained.values()), list(auditors.values()), ruler)

    def methods(self) -> Iterator[Record]:
        """Records of methods that gave a model, in the order of their names."""
        return (record for record in self._attempts() if "failed" not in record.facts)

    def failures(self) -> Counter[str]:
        """How often each method gave none."""
        return Counter(str(record.facts["method"]) for record in self._attempts() if "failed" in record.facts)

    def _attempts(self) -> Iterator[Record]:
        for name in self.cell.names():
            record = self.cell.read(name)
            if record is not None and int(str(record.facts.get("original", -1))) in self.originals:
                yield record

    def judged(self, problem: str, kind: str) -> Iterator[Judged]:
        """Every method's model; each retrained one, beside one of the originals in turn."""
        for record in self.methods():
            number, facts = int(str(record.facts["original"])), record.facts
            yield self._judged(problem, kind, (str(facts["method"]), str(facts["group"])), number, record, None)
        numbers = list(self.originals)
        for place, record in enumerate(self.retrained):
            original = numbers[place % len(numbers)]
            yield self._judged(problem, kind, ("retraining", "reference"), original, record, place)

    # many parameters: what a line says, and the model.
    def _judged(
        self, problem: str, kind: str, name: tuple[str, str], number: int, record: Record, out: int | None
    ) -> Judged:
        original = self.originals[number]
        figures = self.ruler.figures(outputs_of(record), outputs_of(original), out)
        finite = all(bool(torch.isfinite(record.outputs[part]).all()) for part in ("U", "V"))
        statistics = self.statistics(record, number) if finite else None
        return Judged(problem, kind, *name, number, statistics, Quality.of(figures, self.ruler.targets), figures)

    def statistics(self, record: Record, number: int) -> AcceptanceStatistics:
        """Of a model that was made from the original of that number, as the gate takes them: the second auditor judges,
        the first is the witness."""
        witness, judge = self._calibrated[number]
        return acceptance_statistics(
            Loss.CROSS_ENTROPY,
            updated=_on_both(record.outputs),
            original=_on_both(self.originals[number].outputs),
            judge=judge,
            witness=witness,
            labels=OnBoth(self.labels["U"], self.labels["V"]),
        )

    @cached_property
    def _calibrated(self) -> dict[int, list[OnBoth]]:
        """By original: what two auditors say once they are calibrated to it."""
        return {
            number: [_calibrated(auditor, original) for auditor in self.auditors[:2]]
            for number, original in self.originals.items()
        }


def _calibrated(auditor: Record, original: Record) -> OnBoth:
    calibration = calibrate(cross_entropy, auditor.outputs["V"], original.outputs["V"]).by_divergence
    centred = [auditor.outputs[part].double() for part in ("U", "V")]
    centred = [table - table.mean(1, keepdim=True) for table in centred]
    return OnBoth(calibration(centred[0]), calibration(centred[1]))


def outputs_of(record: Record) -> Outputs:
    return Outputs(record.outputs, record.accuracy)


def _on_both(outputs: object) -> OnBoth:
    assert isinstance(outputs, dict)
    return OnBoth(outputs["U"], outputs["V"])


def all_cells(store: Store) -> Iterator[tuple[str, str, CellRecords]]:
    """(problem, set, records) of every cell that can be measured."""
    for folder in sorted((store.folder / "cells").glob("*/*")):
        records = CellRecords.of(store.cell(folder.parent.name, RemovalKind(folder.name)))
        if records is not None:
            yield folder.parent.name, folder.name, records


def all_judged(store: Store) -> Iterator[Judged]:
    for problem, kind, records in all_cells(store):
        yield from records.judged(problem, kind)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "build" / "unlearning"
    for one in all_judged(Store(folder)):
        print(json.dumps({**dataclasses.asdict(one), "accepted": one.accepted}))


if __name__ == "__main__":
    main()
