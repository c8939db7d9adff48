"""Is the Markov blanket worth it?

    python -m benchmarks.blanket [--quick] [--data FOLDER] [--report]

Models and finished cases stay in build/blanket: a run that was broken off goes on where it stopped. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "blanket.json"


def main() -> int:
    parser = argparse.ArgumentParser(description="Is the Markov blanket worth it?")
    parser.add_argument("--quick", action="store_true", help="a small run that writes no results: does all of it work?")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: $OUBLI_DATA, or ../shared/data)")
    parser.add_argument("--report", action="store_true", help="only rebuild the page's tables from the JSON")
    options = parser.parse_args()
    # Before torch and numba are imported, which read it once.
    os.environ["OMP_NUM_THREADS"] = "1"
    from benchmarks.blanket.page import tables, write_page

    if options.quick:
        print(tables(_run(options.data, quick=True)))
        return 0
    if not options.report:
        RESULTS.write_text(json.dumps(_run(options.data), indent=1) + "\n", encoding="utf-8")
    write_page(json.loads(RESULTS.read_text(encoding="utf-8")), ROOT / "docs" / "explanation" / "blanket.md")
    return 0


def _run(data: Path | None, *, quick: bool = False) -> dict[str, object]:
    import torch

    from benchmarks.blanket.problem import QUICK, WHOLE, problem
    from benchmarks.blanket.running import Cases, run_moves, run_selections
    from benchmarks.blanket.summary import evidence_of
    from benchmarks.report import facts
    from benchmarks.unlearning.data import default_folder

    torch.set_num_threads(1)
    folder = ROOT / "build" / ("blanket-quick" if quick else "blanket")
    cases = Cases(folder / "cases.jsonl")
    found = problem(QUICK if quick else WHOLE, data or default_folder(), folder / "models")
    for original in found.scale.originals:
        run_selections(found, original, cases)
        run_moves(found, original, cases)
    moves = [line for key, line in cases.lines.items() if key.startswith("move ")]
    seconds = [float(str(line["seconds"])) for key, line in cases.lines.items() if key.startswith("select ")]
    return {
        "machine": facts(),
        "training_seconds": found.training_seconds(),
        "recording_seconds": sum(seconds) / len(seconds),
        "evidence": evidence_of(found, cases),
        "moves": moves,
    }


if __name__ == "__main__":
    sys.exit(main())
