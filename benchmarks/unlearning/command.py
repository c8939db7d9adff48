"""What `python -m benchmarks.unlearning` does with its options."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.unlearning.cases import FULL_SETTINGS, QUICK_SETTINGS, grid
from benchmarks.unlearning.data import available, default_folder
from benchmarks.unlearning.problems import CONVEX, NETWORKS, QUICK, Problem
from benchmarks.unlearning.removals import SIZES
from benchmarks.unlearning.report import markdown, update_page, write_json
from benchmarks.unlearning.running import Places, Work, run_all
from benchmarks.unlearning.store import CaseStore

COST = "cost"

QUICK_SIZES = ("10",)


@dataclass(frozen=True)
class Command:
    """The options, resolved. page, plots: None writes none."""

    quick: bool
    parts: tuple[str, ...]
    data: Path | None
    folder: Path
    output: Path
    page: Path | None
    plots: Path | None
    workers: int
    threads: int
    seeds: int

    def run(self) -> list[str]:
        """Run what is missing, write everything, and return the missed bars."""
        places = Places(self.folder, self.data or default_folder())
        store = CaseStore(self.folder / "cases.jsonl")
        works = self._works(places.data)
        started = time.perf_counter()
        # Alone, as its seconds are held to a bar.
        costly = [one for one in works if one.name == COST]
        run_all([one for one in works if one.name != COST], store, places, self.workers, self.threads)
        if costly:
            run_all(costly, store, places, 1, self.threads)
        lines = [line for work in works for key in work.keys if (line := store.get(key)) is not None]
        run = {
            "quick": self.quick,
            "parts": list(self.parts),
            "seconds": time.perf_counter() - started,
            "workers": self.workers,
            "threads": self.threads,
            "settings": dataclasses.asdict(QUICK_SETTINGS if self.quick else FULL_SETTINGS),
            "problems": {one.name: dataclasses.asdict(one) for one in self._problems(places.data)},
        }
        results = write_json(self.output, lines, run)
        self._publish(results)
        return _sentences(results["missed_bars"])

    def report(self) -> list[str]:
        """Page and plots from the JSON of an earlier run; its missed bars."""
        results = json.loads(self.output.read_text(encoding="utf-8"))
        self._publish(results)
        return _sentences(results["missed_bars"])

    def _publish(self, results: dict[str, object]) -> None:
        if self.page is not None:
            update_page(self.page, markdown(results))
        if self.plots is not None:
            from benchmarks.unlearning.plots import draw_all

            draw_all(results, self.plots)

    def _problems(self, data: Path) -> list[Problem]:
        wanted = QUICK if self.quick else CONVEX + NETWORKS
        return [one for one in wanted if available(one.data, data)]

    def _works(self, data: Path) -> list[Work]:
        problems = self._problems(data)
        for one in CONVEX + NETWORKS if not self.quick else ():
            if one not in problems:
                print(f"skipped: {one.name}, as {data} has no data for it")
        settings = QUICK_SETTINGS if self.quick else FULL_SETTINGS
        sizes, seeds = (QUICK_SIZES, 1) if self.quick else (SIZES, self.seeds)
        works: list[Work] = []
        if "convex" in self.parts:
            works += grid(tuple(one for one in problems if one.convex), sizes, seeds, settings)
        networks = tuple(one for one in problems if not one.convex)
        if "networks" in self.parts:
            works += grid(networks, sizes, seeds, settings)
        if "determinism" in self.parts:
            from benchmarks.unlearning.determinism import determinism_works

            works += determinism_works(networks[:1], settings)
        if "blanket" in self.parts:
            from benchmarks.unlearning.blanket import blanket_works

            works += blanket_works(networks, quick=self.quick)
        if "cost" in self.parts:
            from benchmarks.unlearning.cost import cost_works

            works += cost_works(data, quick=self.quick)
        return works


def _sentences(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
