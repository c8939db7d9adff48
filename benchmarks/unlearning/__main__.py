"""Removals from networks beside retraining: `python -m benchmarks.unlearning`; see README.md.

    python -m benchmarks.unlearning [--quick] [--only PROBLEM/SET/METHOD ...] [--report] [--data FOLDER] [--threads N]

Whatever is finished stays in build/unlearning: a run that was broken off goes on where it stopped, and one of a part
leaves the others' figures alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.unlearning", description="Removals from networks.")
    parser.add_argument("--quick", action="store_true", help="a tiny network on the digits, in under a minute")
    parser.add_argument("--only", action="append", default=[], help="PROBLEM[/SET[/METHOD]], * for any; repeatable")
    parser.add_argument("--report", action="store_true", help="run nothing: only write JSON, tables and plots")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: $OUBLI_DATA, or ../shared/data)")
    parser.add_argument("--folder", type=Path, help="of models and records (default: build/unlearning)")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/unlearning.json)")
    parser.add_argument("--page", type=Path, help="Markdown page to update (default: benchmarks/unlearning/README.md)")
    parser.add_argument("--plots", type=Path, help="folder of the plots (default: docs)")
    parser.add_argument("--threads", type=int, default=1, help="of the process")
    options = parser.parse_args(arguments)
    # Before torch and numba are imported, which read it once.
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    os.environ.setdefault("NUMBA_NUM_THREADS", str(options.threads))
    import torch

    from benchmarks.unlearning.command import Command

    torch.set_num_threads(options.threads)
    build = ROOT / "build"
    name = "unlearning-quick" if options.quick else "unlearning"
    folder = options.folder or build / name
    # A quick run says nothing about the methods: it leaves results, page and plots alone, unless it is told where.
    Command(
        quick=options.quick,
        wanted=tuple(options.only),
        run=not options.report,
        folder=folder,
        data=options.data,
        output=options.output or (folder if options.quick else ROOT / "benchmarks/results") / "unlearning.json",
        page=options.page or (folder if options.quick else ROOT / "benchmarks/unlearning") / "README.md",
        plots=options.plots or (folder if options.quick else ROOT / "docs"),
    ).execute()
    return 0


if __name__ == "__main__":
    sys.exit(main())
