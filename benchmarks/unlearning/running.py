"""Runs work and keeps its lines: in this process, or in several.

Several processes with one thread each do more than one with several: the models are small.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.unlearning.store import CaseStore, Line


class Work(Protocol):
    """Some cases that are run together."""

    @property
    def name(self) -> str: ...

    @property
    def keys(self) -> tuple[str, ...]: ...

    def run(self, known: Mapping[str, Line], folder: Path, data_folder: Path) -> Iterator[Line]:
        """A line for every case that is not known, as soon as it is there."""
        ...


@dataclass(frozen=True)
class Places:
    """folder: of cases and trained models; data: of the data sets."""

    folder: Path
    data: Path


def run_all(works: Iterable[Work], store: CaseStore, places: Places, workers: int, threads: int) -> None:
    """Run what the store does not have, with a progress bar; every finished case is kept at once."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    missing = [one for one in works if any(key not in store for key in one.keys)]
    cases = sum(key not in store for one in missing for key in one.keys)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(elapsed_when_finished=True)) as bar:
        task = bar.add_task("cases", total=cases)

        def keep(line: Line) -> None:
            store.add(line)
            bar.update(task, advance=1, description=f"{line['problem']} m={line['size']} {line['strategy']}")

        if workers == 1:
            torch.set_num_threads(threads)
            for work in missing:
                for line in work.run(_known(work, store), places.folder, places.data):
                    keep(line)
        else:
            _in_processes(missing, store, places, workers, threads, keep)


def _in_processes(
    works: list[Work], store: CaseStore, places: Places, workers: int, threads: int, keep: Callable[[Line], None]
) -> None:
    # Fork would copy thread pools that then hang; numba and torch both have one.
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
    ) as pool:
        waiting = [pool.submit(_lines, work, _known(work, store), places) for work in works]
        for done in as_completed(waiting):
            for line in done.result():
                keep(line)


def _lines(work: Work, known: dict[str, Line], places: Places) -> list[Line]:
    return list(work.run(known, places.folder, places.data))


def _known(work: Work, store: CaseStore) -> dict[str, Line]:
    found = {key: store.get(key) for key in work.keys}
    return {key: line for key, line in found.items() if line is not None}
