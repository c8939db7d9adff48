"""What a removal costs beside training, on the full Fashion-MNIST training set.

Every stage runs in a process of its own (`cost_child`), so that its peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.unlearning.data import Data, available
from benchmarks.unlearning.problems import digest
from benchmarks.unlearning.store import Line

VERSION = 1

REMOVED = 100

PASS_BAR = 1 / 20
SNAPSHOT_BAR = 1 / 100
MEMORY_BAR = 2.0

STAGES = ("training", "snapshot", "one_pass", "newton_sampled", "newton_kfac", "from_snapshot")
QUICK_STAGES = ("training", "snapshot", "newton_sampled", "from_snapshot")
TIME_BARS = {"one_pass": PASS_BAR, "from_snapshot": SNAPSHOT_BAR}

COLUMNS = [
    "problem",
    "strategy",
    "seconds",
    "share_of_training",
    "check_seconds",
    "peak_mb",
    "memory_of_training",
    "gradient_ratio",
    "test_accuracy",
    "met",
]


@dataclass(frozen=True)
class CostStudy:
    """All stages, one after another."""

    quick: bool

    @property
    def name(self) -> str:
        return "cost"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(digest(["cost", VERSION, self.quick, stage]) for stage in self._stages)

    @property
    def _stages(self) -> tuple[str, ...]:
        return QUICK_STAGES if self.quick else STAGES

    def run(self, known: Mapping[str, Line], folder: Path, data_folder: Path) -> Iterator[Line]:
        """As `running.Work.run`."""
        place = folder / "cost"
        place.mkdir(parents=True, exist_ok=True)
        training: Mapping[str, object] | None = known.get(self.keys[0])
        for stage, key in zip(self._stages, self.keys, strict=True):
            if key in known:
                continue
            found = _in_child(stage, place, data_folder, self.quick)
            training = found if stage == "training" else training
            assert training is not None
            time_share = float(found["seconds"]) / float(str(training["seconds"]))
            memory_share = float(found["peak_mb"]) / float(str(training["peak_mb"]))
            met = None
            if stage in TIME_BARS and not self.quick:
                met = time_share <= TIME_BARS[stage] and memory_share <= MEMORY_BAR
            yield {
                "key": key,
                "part": "cost",
                "size": str(REMOVED),
                "strategy": stage,
                "share_of_training": time_share,
                "memory_of_training": memory_share,
                "met": met,
                "columns": COLUMNS,
                **found,
            }


def _in_child(stage: str, place: Path, data_folder: Path, quick: bool) -> dict[str, float]:
    """The figures that `cost_child` prints."""
    command = [sys.executable, "-m", "benchmarks.unlearning.cost_child", stage, str(place), str(data_folder)]
    done = subprocess.run([*command, "quick" if quick else "full"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"stage {stage} ended with status {done.returncode}:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def cost_works(data: Path, *, quick: bool) -> list[CostStudy]:
    return [CostStudy(quick)] if quick or available(Data.FASHION, data) else []
