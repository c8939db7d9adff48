"""The removal update against retraining.

    python -m benchmarks.unlearning [--quick] [--only PART ...] [--data FOLDER] [--workers N] [--threads N] [--report]

Finished cases stay in build/unlearning: a run that was broken off goes on where it stopped. Exits with 1 where a bar
is missed, and lists those.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("convex", "networks", "determinism", "blanket", "cost")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The removal update against retraining.")
    parser.add_argument("--quick", action="store_true", help="tiny models on the digits and on synthetic texts")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone; may be repeated")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: $OUBLI_DATA, or ../shared/data)")
    parser.add_argument("--folder", type=Path, help="of finished cases and models (default: build/unlearning)")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/unlearning.json)")
    parser.add_argument("--page", type=Path, help="Markdown page to update (default: benchmarks/unlearning/README.md)")
    parser.add_argument("--plots", type=Path, help="folder of the plots (default: docs)")
    parser.add_argument("--workers", type=int, default=1, help="processes at once")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--seeds", type=int, default=3, help="removal sets of each size")
    parser.add_argument("--report", action="store_true", help="only rebuild page and plots from the JSON")
    options = parser.parse_args(arguments)
    # Before torch and numba are imported, which read it once.
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    os.environ.setdefault("NUMBA_NUM_THREADS", str(options.threads))
    from benchmarks.unlearning.command import Command

    name = "unlearning-quick" if options.quick else "unlearning"
    # A quick run says nothing about the method: it leaves page and plots alone, unless it is told where.
    default_page = None if options.quick else ROOT / "benchmarks" / "unlearning" / "README.md"
    started = time.perf_counter()
    command = Command(
        quick=options.quick,
        parts=tuple(options.only or PARTS),
        data=options.data,
        folder=options.folder or ROOT / "build" / name,
        output=options.output or (ROOT / "build" / f"{name}.json" if options.quick else _results()),
        page=options.page or default_page,
        plots=options.plots or (None if options.quick else ROOT / "docs"),
        workers=options.workers,
        threads=options.threads,
        seeds=options.seeds,
    )
    missed = command.report() if options.report else command.run()
    print(f"{time.perf_counter() - started:.0f} s")
    for one in missed:
        print(f"missed: {one}")
    return 1 if missed else 0


def _results() -> Path:
    return ROOT / "benchmarks" / "results" / "unlearning.json"


if __name__ == "__main__":
    sys.exit(main())
