"""What `python -m benchmarks.unlearning` does with its options."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.unlearning.data import default_folder
from benchmarks.unlearning.problems import GRID, QUICK_GRID, WHOLE_GRID
from benchmarks.unlearning.report import markdown, update_page
from benchmarks.unlearning.results import gathered, merged, read_json, write_json
from benchmarks.unlearning.running import ORIGINALS, RETRAINED, Plan, run_all
from benchmarks.unlearning.store import Store

QUICK_ORIGINALS, QUICK_RETRAINED = ORIGINALS[:1], RETRAINED[:3]


@dataclass(frozen=True)
class Command:
    """The options, resolved."""

    quick: bool
    wanted: tuple[str, ...]
    run: bool
    folder: Path
    data: Path | None
    output: Path
    page: Path
    plots: Path

    def execute(self) -> None:
        """Run what is missing, then write JSON, page and plots."""
        store = Store(self.folder)
        if self.run:
            run_all(self._plan(store), _tell)
        results = merged(read_json(self.output), gathered(store))
        write_json(self.output, results)
        update_page(self.page, markdown(results))
        from benchmarks.unlearning.plots import draw_all

        draw_all(results, self.plots)

    def _plan(self, store: Store) -> Plan:
        data = self.data or default_folder()
        if self.quick:
            return Plan(QUICK_GRID, store, data, self.wanted, QUICK_ORIGINALS, QUICK_RETRAINED)
        # All images take hours: they run where a pattern names them.
        named = any(pattern.startswith(WHOLE_GRID[0][0].name) for pattern in self.wanted)
        return Plan((*GRID, *WHOLE_GRID) if named else GRID, store, data, self.wanted)


def _tell(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)
