"""L-FOCI: how fast, how it grows, and whether it is right while it is fast.

Axes: N rows, p columns.

    python -m benchmarks.lfoci [--json] [--output FILE] [--plot FILE]

Slice activations of networks trained on scikit-learn's digits (benchmarks/trained.py). Cases:

    peers     N = 1000, p = 64, 256, 1024: against scikit-learn's neighbours in a loop, and xicorpy; equal lists
    width     N = 1000, p = 64 to 65536, with 1 thread and with all
    rows      p = 256, N = 500 to 8000
    batch     selections a second, many tables of N = 1000, p = 64
    process   N = 1000, p = 16384 in a process of its own: memory (the table's included, that of the interpreter and
              its libraries not), and compilation into an empty cache
    gpu       where there is one: seconds a step against the arithmetic floor measured on the card

Times are the least of several runs after one to warm up; the peers, which take minutes, run once. Exits with 1 where a
list differs from a peer's, or a result from that of another thread count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.lfoci_peers import by_xicorpy, greedy
from benchmarks.report import Case, facts, print_table
from benchmarks.trained import Trained, TrainedNetwork
from oubli.components.lfoci import Selection, l_foci, l_foci_many
from oubli.components.lfoci.columns import NOISE_SCALE, Columns
from oubli.components.lfoci.threads import Crew

SAMPLE = 7
ROWS = 1000
PEER_WIDTHS = (64, 256, 1024)
WIDTHS = (64, 256, 1024, 4096, 16384, 65536)
HEIGHTS = (500, 1000, 2000, 4000, 8000)
BATCH = 128

# The bars; None in a case that has none.
TIMES_FASTER = {256: (150.0, 100.0), 1024: (300.0, 300.0)}  # than the greedy, than xicorpy
SPEEDUP_OF_THREADS, THREADS_FROM_WIDTH = 1.6, 4096  # with 2 threads
SECONDS = {16384: 5.0}
SELECTIONS_A_SECOND = 40.0
SELECTION_MB = 400.0


def cases() -> Iterator[Case]:
    yield from _peers()
    yield from _width()
    yield from _rows()
    yield _batch()
    yield from _process()
    if torch.cuda.is_available():
        from benchmarks.lfoci_gpu import gpu_cases

        yield from gpu_cases(_table(16384))


@cache
def _network(width: int) -> TrainedNetwork:
    return TrainedNetwork(width)


def _table(width: int, rows: int = ROWS) -> Trained:
    return _network(width).record(SAMPLE, rows)


def _seconds(run: Callable[[], object], repeats: int) -> float:
    """Least of several runs, after one to warm up."""
    run()
    least = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - start)
    return least


def _select(table: Trained, threads: int | None) -> Selection:
    return l_foci(table.activations, table.losses, generator=np.random.default_rng(0), threads=threads)


def _timed(table: Trained, repeats: int) -> dict[str, object]:
    """Seconds with 1 thread and with all; equal results."""
    cores = Crew().threads
    alone, together = _select(table, 1), _select(table, None)
    seconds_alone = _seconds(lambda: _select(table, 1), repeats)
    seconds_together = _seconds(lambda: _select(table, None), repeats)
    return {
        "N": len(table.losses),
        "p": table.activations.shape[1],
        "columns_selected": len(alone.order),
        "stop": alone.stop.value,
        "threads": cores,
        "seconds_1_thread": seconds_alone,
        "seconds_all_threads": seconds_together,
        "speedup_of_threads": seconds_alone / seconds_together,
        "correct": alone == together,
    }


def _number(case: Case, key: str) -> float:
    value = case[key]
    assert isinstance(value, int | float)
    return value


def _peers() -> Iterator[Case]:
    for width in PEER_WIDTHS:
        table = _table(width)
        with Crew(1) as crew:
            columns = Columns.of(
                table.activations,
                np.arange(ROWS),
                noise_scale=NOISE_SCALE,
                generator=np.random.default_rng(0),
                crew=crew,
            )
        prepared = np.ascontiguousarray(columns.values[columns.usable].T)
        ours = _select(table, None)
        start = time.perf_counter()
        order, scores = greedy(prepared, table.losses)
        greedy_seconds = time.perf_counter() - start
        start = time.perf_counter()
        their_order = by_xicorpy(prepared, table.losses)
        xicorpy_seconds = time.perf_counter() - start
        timed = _timed(table, 5)
        place = [int(column) for column in columns.usable]
        times = [seconds / _number(timed, "seconds_all_threads") for seconds in (greedy_seconds, xicorpy_seconds)]
        bars = TIMES_FASTER.get(width)
        yield {
            "case": "peers",
            **timed,
            "greedy_seconds": greedy_seconds,
            "xicorpy_seconds": xicorpy_seconds,
            "times_faster_than_greedy": times[0],
            "times_faster_than_xicorpy": times[1],
            "met": times[0] >= bars[0] and times[1] >= bars[1] if bars else None,
            "correct": bool(timed["correct"])
            and [place[column] for column in order] == list(ours.order)
            and [place[column] for column in their_order] == list(ours.order)
            and bool(np.allclose(scores, ours.scores, rtol=0.0, atol=1e-12)),
        }


def _width() -> Iterator[Case]:
    for width in WIDTHS:
        network = _network(width)
        accuracy = network.accuracy()
        timed = _timed(network.record(SAMPLE, ROWS), 5 if width <= 4096 else 2)
        met = None
        if width >= THREADS_FROM_WIDTH and timed["threads"] == 2:
            in_time = _number(timed, "seconds_all_threads") <= SECONDS.get(width, float("inf"))
            met = in_time and _number(timed, "speedup_of_threads") >= SPEEDUP_OF_THREADS
        yield {"case": "width", **timed, "accuracy": accuracy, "met": met}


def _rows() -> Iterator[Case]:
    for rows in HEIGHTS:
        yield {"case": "rows", **_timed(_table(256, rows), 3 if rows <= 2000 else 1)}


def _batch() -> Case:
    network = _network(64)
    tables = [network.record(sample, ROWS) for sample in range(BATCH)]
    activations, losses = [table.activations for table in tables], [table.losses for table in tables]

    def select() -> tuple[Selection, ...]:
        return l_foci_many(activations, losses, generator=np.random.default_rng(0))

    seconds = _seconds(select, 3)
    found = select()
    children = np.random.default_rng(0).spawn(BATCH)
    singly = tuple(
        l_foci(table.activations, table.losses, generator=child, threads=1)
        for table, child in zip(tables, children, strict=True)
    )
    return {
        "case": "batch",
        "N": ROWS,
        "p": 64,
        "threads": Crew().threads,
        "selections": BATCH,
        "columns_selected": sum(len(one.order) for one in found) / BATCH,
        "seconds": seconds,
        "selections_a_second": BATCH / seconds,
        "met": BATCH / seconds >= SELECTIONS_A_SECOND,
        "correct": found == singly,
    }


def _process() -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.npz"
        table = _table(16384)
        np.savez(path, activations=table.activations, losses=table.losses)
        for start in ("empty cache", "warm cache"):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.lfoci_child", str(path)],
                env={**os.environ, "NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout)
            selection_mb = found["process_mb_peak"] - found["process_mb_before"] + found["table_mb"]
            yield {
                "case": "process",
                "start": start,
                "N": ROWS,
                "p": 16384,
                **found,
                "selection_mb": selection_mb,
                "met": selection_mb <= SELECTION_MB if start == "warm cache" else None,
            }


TITLES = {
    "peers": "Against other ways to make the same selection",
    "width": "Growth in p",
    "rows": "Growth in N",
    "batch": "Many small selections at once",
    "process": "A fresh process (1st: compiles; 2nd: finds the kernels compiled)",
    "gpu": "On a GPU",
}


def _draw(results: list[Case], path: Path) -> None:
    """Seconds against p, ours and the peers', on logarithmic axes."""
    from matplotlib.figure import Figure

    widths = [case for case in results if case["case"] == "width"]
    peers = [case for case in results if case["case"] == "peers"]
    lines = [
        (peers, "greedy_seconds", "NumPy and scikit-learn", "#b5482a", "s"),
        (peers, "xicorpy_seconds", "xicorpy", "#c9962c", "^"),
        (widths, "seconds_1_thread", "oubli, 1 thread", "#7ba3cc", "o"),
        (widths, "seconds_all_threads", f"oubli, {widths[0]['threads']} threads", "#1f4e79", "o"),
    ]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for source, key, label, color, marker in lines:
        widths_of, seconds = [_number(case, "p") for case in source], [_number(case, key) for case in source]
        axes.plot(widths_of, seconds, marker, color=color, label=label, ls="-")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(WIDTHS, [f"{width:,}" for width in WIDTHS])
    axes.set_xlabel("p, columns")
    axes.set_ylabel("seconds for one selection")
    axes.set_title(f"The same selection from the same table, N = {ROWS:,}", loc="left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description="L-FOCI: speed, growth and correctness.")
    parser.add_argument("--json", action="store_true", help="one JSON object per case on stdout, and nothing else")
    parser.add_argument("--output", type=Path, help="also write all cases to this JSON file")
    parser.add_argument("--plot", type=Path, help="also draw time against p to this file")
    arguments = parser.parse_args()
    stamp = facts()
    results: list[Case] = []
    for case in cases():
        results.append({**case, "machine": stamp})
        if arguments.json:
            print(json.dumps(results[-1]), flush=True)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.plot:
        arguments.plot.parent.mkdir(parents=True, exist_ok=True)
        _draw(results, arguments.plot)
    if not arguments.json:
        for name, title in TITLES.items():
            chosen = [case for case in results if case["case"] == name]
            if chosen:
                keys = [key for key in chosen[0] if key not in ("case", "machine")]
                print_table(title, chosen, {key: key.replace("_", " ") for key in keys})
    wrong = [case for case in results if not case.get("correct", True)]
    for case in wrong:
        print(f"Results differ: {case}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
