"""One selection in a process of its own, for what only a fresh process shows: memory, and the time to compile.

    python -m benchmarks.lfoci_child TABLE.npz

TABLE.npz holds `activations` and `losses`. Prints one JSON object; memory is in MB of 10^6 bytes. Linux only, as it
reads /proc.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from oubli.components.lfoci import l_foci


def main(path: str) -> None:
    with np.load(path) as stored:
        activations, losses = stored["activations"], stored["losses"]
    before = _peak_mb()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        l_foci(activations, losses, generator=np.random.default_rng(0))
        seconds.append(time.perf_counter() - start)
    print(
        json.dumps(
            {
                "first_call_seconds": seconds[0],
                "second_call_seconds": seconds[1],
                "table_mb": activations.nbytes / 1e6,
                "process_mb_before": before,
                "process_mb_peak": _peak_mb(),
            }
        )
    )


def _peak_mb() -> float:
    # Not getrusage: a child's maximum starts at its parent's.
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return kilobytes * 1024 / 1e6


if __name__ == "__main__":
    main(sys.argv[1])
