"""Whether the same seed twice gives the same bits: of a training, a selection and an update."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.unlearning.cases import Settings, reference_of, sha256_of
from benchmarks.unlearning.problems import Problem, bench, digest
from benchmarks.unlearning.store import Line
from benchmarks.unlearning.strategies import Desk, Strategy

SIZE = "10"
UPDATES = (Strategy.L_FOCI, Strategy.FULL_KFAC)
COLUMNS = ["problem", "what", "same_bits", "seconds"]


@dataclass(frozen=True)
class Twice:
    """A training, and the updates UPDATES, each made twice from scratch."""

    problem: Problem
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.problem.name}, twice"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._key(what) for what in ("training", *UPDATES))

    def _key(self, what: str) -> str:
        perturbations = self.settings.perturbations[SIZE]
        return digest(["determinism", self.problem.digest(), str(what), perturbations, 1])

    def run(self, known: Mapping[str, Line], folder: Path, data_folder: Path) -> Iterator[Line]:
        """As `running.Work.run`."""
        ready = bench(self.problem, data_folder)
        if self._key("training") not in known:
            started = time.perf_counter()
            samples = ready.data.train
            found = []
            for _ in range(2):
                objective = ready.objective(ready.train(ready.build(0), samples, 0))
                found.append(sha256_of(objective.theta()))
            yield self._line("training", found, started)
        for strategy in UPDATES:
            if self._key(strategy) in known:
                continue
            started = time.perf_counter()
            found = []
            for _ in range(2):
                reference = reference_of(ready, SIZE, 0, 1, folder)
                perturbations = self.settings.perturbations[SIZE]
                desk = Desk(reference, ready.data, False, perturbations, self.settings.curvature_samples, 0)
                theta = desk.attempt(strategy, {}).theta
                found.append("no update" if theta is None else sha256_of(theta))
            yield self._line(strategy, found, started)

    def _line(self, what: str, found: list[str], started: float) -> Line:
        return {
            "key": self._key(what),
            "part": "determinism",
            "problem": self.problem.name,
            "size": SIZE,
            "strategy": str(what),
            "what": str(what),
            "same_bits": found[0] == found[1],
            "met": found[0] == found[1],
            "seconds": time.perf_counter() - started,
            "columns": COLUMNS,
        }


def determinism_works(problems: tuple[Problem, ...], settings: Settings) -> list[Twice]:
    return [Twice(one, settings) for one in problems]
