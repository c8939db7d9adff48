"""The CUDA engine: on a GPU where there is one, and elsewhere its kernel compiled and interpreted."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks.trained import TrainedNetwork
from oubli.components.lfoci import l_foci

# The interpreter must be chosen before Triton is imported, hence a process of its own.
INTERPRETED = """
import dataclasses
import numpy as np, torch
from oubli.components.lfoci import foci
from oubli.components.lfoci.columns import Columns
from oubli.components.lfoci.engines.cpu import CpuEngine
from oubli.components.lfoci.threads import Crew
from oubli.components.lfoci.engines.cuda import CudaEngine
from oubli.components.lfoci.ranks import Ranks

for seed, count, width in ((0, 2, 1), (1, 9, 3), (2, 12, 140), (3, 24, 6)):
    draw = np.random.default_rng(seed)
    activations = np.maximum(draw.standard_normal((count, width)), 0)
    activations[:, width // 2 : width // 2 + (width > 2)] = 1
    activations[0, 0] = 2
    losses = np.round(activations[:, 0] * activations[:, -1] + draw.standard_normal(count), 1)
    rows = np.argsort(-losses, kind="stable")
    ranks = Ranks.of(losses[rows])
    columns = Columns.of(activations, rows, noise_scale=1e-6, generator=draw, crew=Crew(1))
    if seed == 3:  # equally near rows, which noise would tell apart
        columns = dataclasses.replace(columns, values=np.round(columns.values))
    usable = len(columns.usable)
    on_cpu = foci._greedy(CpuEngine(columns, ranks, Crew(1)), ranks, usable, 2)
    on_gpu = foci._greedy(CudaEngine(columns, ranks, torch.device("cpu")), ranks, usable, 2)
    assert on_cpu == on_gpu, (on_cpu, on_gpu)
    print(on_gpu)
"""


def test_the_interpreted_kernel_selects_what_the_cpu_selects() -> None:
    pytest.importorskip("triton", reason="Triton is not installed (it comes with torch's CUDA build)")
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4


def test_the_kernel_compiles_for_an_h100_without_fused_multiply_adds() -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed (it comes with torch's CUDA build)")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from oubli.components.lfoci.engines import cuda

    signature = dict.fromkeys(("z", "near"), "*fp64") | dict.fromkeys(("rows", "ranks"), "*i32")
    signature |= {"shortfalls": "*i64", "count": "i32", "columns": "i32", "LANES": "constexpr", "STRIDE": "constexpr"}
    source = ASTSource(cuda._search, signature=signature, constexprs={"LANES": 128, "STRIDE": 8})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    assert "mul.rn.f64" in compiled.asm["ptx"]
    assert "fma.rn.f64" not in compiled.asm["ptx"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(("count", "width"), [(1000, 256), (2000, 64), (1000, 4096)])
def test_the_gpu_selects_what_the_cpu_selects(count: int, width: int) -> None:
    trained = TrainedNetwork(width).record(7, count)
    found = [
        l_foci(trained.activations, trained.losses, generator=np.random.default_rng(0), device=device)
        for device in ("cpu", "cuda")
    ]
    assert found[0] == found[1]
