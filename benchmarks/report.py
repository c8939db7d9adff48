"""What every benchmark reports beside its figures, and how it prints them.

With --json: one JSON object per case on stdout, nothing else. Without: a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

Case = Mapping[str, object]


def wants_json(description: str) -> bool:
    """Parse the command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object per case on stdout, and nothing else")
    return bool(parser.parse_args().json)


def facts() -> dict[str, object]:
    """The machine, the versions and the commit that a figure belongs to."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": _dirty(),
    }


def cpu_model() -> str:
    """As /proc/cpuinfo names it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def print_json(cases: Iterable[Case]) -> None:
    """One line per case, as soon as it is there, with the facts in each."""
    stamp = facts()
    for case in cases:
        print(json.dumps({**case, "machine": stamp}), flush=True)


def print_table(title: str, cases: Sequence[Case], rows: Mapping[str, str]) -> None:
    """A table with a column per case and the rows `key -> heading`, and the facts below it."""
    # Imported here: --json needs no rich.
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False)
    for key, heading in rows.items():
        table.add_row(heading, *(_shown(case[key]) for case in cases))
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in facts().items()), style="dim")


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _dirty() -> bool | None:
    status = _git("status", "--porcelain")
    return None if status is None else bool(status)


def _git(*arguments: str) -> str | None:
    """Output of a git command in this checkout, None where there is no git or no commit."""
    root = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
