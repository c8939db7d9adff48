"""L-FOCI on a CUDA device: seconds a step against the arithmetic floor of brute force on the same card.

Axes: N rows, p columns.

The floor is the time of N * N * p times (subtract, square, add, keep the least) in float64, on numbers that are in
registers already: what a search over every pair cannot go below. The first step looks at every pair; later ones stop
early, and may be faster than it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import triton
import triton.language as tl

from benchmarks.report import Case
from benchmarks.trained import Trained
from oubli.components.lfoci import l_foci
from oubli.components.lfoci.columns import NOISE_SCALE, Columns
from oubli.components.lfoci.engines.cuda import CudaEngine
from oubli.components.lfoci.ranks import Ranks
from oubli.components.lfoci.threads import Crew

_LANES = 128
_REPEATS = 5


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _floor(z, near, out, count, columns, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    here = tl.load(z + row * columns + lane, mask=lane < columns, other=0.0)
    best = tl.full((LANES,), float("inf"), dtype=tl.float64)
    for k in range(count):
        distance = tl.load(near + k)
        gap = distance - here
        best = tl.minimum(best, distance + gap * gap)
    tl.store(out + row * columns + lane, best, mask=lane < columns)


def gpu_cases(table: Trained) -> Iterator[Case]:
    """One case for the table: floor, steps, whole selection, and whether the CPU selects the same."""
    device = torch.device("cuda")
    on_cpu = l_foci(table.activations, table.losses, generator=np.random.default_rng(0))
    started = time.perf_counter()
    on_gpu = l_foci(table.activations, table.losses, generator=np.random.default_rng(0), device=device)
    first_call = time.perf_counter() - started
    whole = _seconds(lambda: l_foci(table.activations, table.losses, generator=np.random.default_rng(0), device=device))
    rows = np.argsort(-table.losses, kind="stable")
    ranks = Ranks.of(table.losses[rows])
    with Crew() as crew:
        columns = Columns.of(
            table.activations, rows, noise_scale=NOISE_SCALE, generator=np.random.default_rng(0), crew=crew
        )
    engine = CudaEngine(columns, ranks, device)
    steps = []
    for column in on_gpu.order:
        steps.append(_seconds(engine.shortfalls))
        engine.take(column)
    steps.append(_seconds(engine.shortfalls))
    z = torch.from_numpy(columns.values.T.copy()).to(device)
    floor = _seconds(lambda: _run_floor(z))
    yield {
        "case": "gpu",
        "card": torch.cuda.get_device_name(device),
        "N": len(table.losses),
        "p": table.activations.shape[1],
        "columns_selected": len(on_gpu.order),
        "floor_seconds": floor,
        "first_step_seconds": steps[0],
        "later_step_seconds": statistics.median(steps[1:]),
        "slowest_step_over_floor": max(steps) / floor,
        "seconds": whole,
        "first_call_seconds": first_call,
        "correct": on_cpu == on_gpu,
    }


def _run_floor(z: torch.Tensor) -> None:
    out = torch.empty_like(z)
    near = z[:, 0].contiguous()
    count, width = z.shape
    _floor[(count, triton.cdiv(width, _LANES))](z, near, out, count, width, LANES=_LANES, enable_fp_fusion=False)


def _seconds(run: Callable[[], object]) -> float:
    run()
    least = float("inf")
    for _ in range(_REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        least = min(least, time.perf_counter() - start)
    return least
