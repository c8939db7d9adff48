"""L-FOCI's search on a CUDA device, in Triton: the same walk as on the CPU, with the same result in float64.

Axes: N rows, in descending order of the response; c columns that vary, z; k places in a row's list.

A list holds every other row, sorted, so no search runs past its end. The first step is a walk along a list
of zeros, which looks at every row: N^2 c small steps are milliseconds here.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from oubli.components.lfoci.columns import Columns
from oubli.components.lfoci.ranks import Ranks

_LANES = 128  # candidates of one program, side by side: four warps, one candidate a thread
_STRIDE = 8  # places of the list between two looks at whether any candidate goes on


# many parameters: a Triton kernel takes pointers, sizes and its constants one by one.
# Triton reads annotations as its own: those of Python would be errors.
@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _search(z, near, rows, ranks, shortfalls, count, columns, LANES: tl.constexpr, STRIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add to (c,) int64 `shortfalls` those of LANES columns in one row.

    z: (N, c) float64. near: (N, N) float64 squared distances in X, each row ascending, inf at the end; rows:
    (N, N) int32, whose they are. ranks: (N,) int32, R.
    """
    row = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = lane < columns
    here = tl.load(z + row * columns + lane, mask=inside, other=0.0)
    best = tl.full((LANES,), float("inf"), dtype=tl.float64)
    rank = tl.zeros((LANES,), dtype=tl.int32)
    near += row * count
    rows += row * count
    k = 0
    going = True
    while going:
        for ahead in tl.static_range(STRIDE):
            within = k + ahead < count
            distance = tl.load(near + k + ahead, mask=within, other=float("inf"))
            other = tl.load(rows + k + ahead, mask=within, other=0).to(tl.int64)
            gap = tl.load(z + other * columns + lane, mask=inside, other=0.0) - here
            reached = distance + gap * gap
            closer = reached < best
            best = tl.where(closer, reached, best)
            rank = tl.where(closer, tl.load(ranks + other), rank)
        k += STRIDE
        # The list ascends: what follows is at least as far in X alone as its next entry.
        following = tl.load(near + k, mask=k < count, other=float("inf"))
        going = following < tl.max(tl.where(inside, best, 0.0), axis=0)
    lost = tl.maximum(tl.load(ranks + row) - rank, 0).to(tl.int64)
    tl.atomic_add(shortfalls + lane, lost, mask=inside)


class CudaEngine:
    """Finds the column that falls short least in rank beside those taken (the contract is foci.Engine)."""

    def __init__(self, columns: Columns, ranks: Ranks, device: torch.device) -> None:
        self._usable = columns.usable
        values = torch.from_numpy(columns.values).to(device)[torch.from_numpy(columns.usable).to(device)]
        self._z = values.T.contiguous()
        self._ranks = torch.from_numpy(ranks.below).to(device, torch.int32)
        self._left = torch.ones(len(columns.usable), dtype=torch.bool, device=device)
        count = len(self._z)
        self._distances = torch.zeros((count, count), dtype=torch.float64, device=device)
        self._distances.fill_diagonal_(float("inf"))

    def take(self, column: int) -> None:
        place = int(self._usable.searchsorted(column))
        self._left[place] = False
        taken = self._z[:, place]
        self._distances += (taken[:, None] - taken).square()

    def best(self) -> tuple[int, int]:
        shortfalls = self.shortfalls()
        shortfalls[~self._left] = torch.iinfo(torch.int64).max
        least = shortfalls.min()
        place = int((shortfalls == least).nonzero()[0])  # the first of equals: the lower column
        return int(self._usable[place]), int(least)

    def shortfalls(self) -> Tensor:
        """(c,) int64, of every column beside those taken."""
        # Stable: of equally near rows the one with the larger response comes first, as on the CPU.
        near, rows = self._distances.sort(dim=1, stable=True)
        count, columns = self._z.shape
        shortfalls = torch.zeros(columns, dtype=torch.int64, device=self._z.device)
        grid = (count, triton.cdiv(columns, _LANES))
        # No fused multiply-add: it rounds once where the CPU rounds twice, and could choose another row.
        _search[grid](
            self._z, near, rows.to(torch.int32), self._ranks, shortfalls, count, columns,
            LANES=_LANES, STRIDE=_STRIDE, enable_fp_fusion=False,
        )  # fmt: skip
        return shortfalls
