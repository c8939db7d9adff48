"""L-FOCI's search on the CPU: exact, in float64, eight candidates at a time.

Axes: N rows, in descending order of the response; p columns; s columns taken, X; c candidates, z; k places
in a row's list. The README of this folder explains the steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oubli.components.lfoci.columns import Columns
from oubli.components.lfoci.engines import searching, sorting
from oubli.components.lfoci.engines.simd import WIDTH
from oubli.components.lfoci.ranks import Ranks
from oubli.components.lfoci.threads import Crew

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_SORTED_AT_ONCE = 64  # columns: a few blocks, so that threads end together
_SHARES = 4  # a thread's pieces of work; more than one, as rows and blocks differ in cost
_WORTH_SHARING = 16  # blocks of candidates: fewer take less time than waking a thread


class CpuEngine:
    """Finds the column that falls short least in rank beside those taken (the contract is foci.Engine)."""

    def __init__(self, columns: Columns, ranks: Ranks, crew: Crew) -> None:
        self._values = columns.values
        self._whole_ranks = ranks.below
        self._ranks = ranks.below.astype(np.float64)  # a lane holds floating point
        self._crew = crew
        self._left = columns.usable
        self._hopes = np.zeros(len(columns.values))
        self._taken: list[int] = []
        small = len(self._ranks) <= np.iinfo(np.uint16).max
        self._order = np.empty(self._values.shape, dtype=np.uint16 if small else np.uint32)

    def take(self, column: int) -> None:
        self._taken.append(column)
        self._left = self._left[self._left != column]

    def best(self) -> tuple[int, int]:
        shortfalls = self._conditional() if self._taken else self._unconditional()
        place = int(shortfalls.argmin())  # the first of equals: the lower column
        return int(self._left[place]), int(shortfalls[place])

    def _unconditional(self) -> Floats:
        """Exact shortfall of every column by itself: its neighbours are adjacent once it is sorted."""

        def share(start: int) -> Floats:
            columns = self._left[start : start + _SORTED_AT_ONCE]
            sorting.sort(self._values, columns, self._order)
            return sorting.adjacent(self._values, columns, self._order, self._whole_ranks)

        found = self._crew.each(share, range(0, len(self._left), _SORTED_AT_ONCE))
        self._hopes[self._left] = np.concatenate(found)
        return self._hopes[self._left]

    def _conditional(self) -> Floats:
        """Shortfall beside the columns taken: exact for the best, infinite for what was abandoned."""
        blocks = -(-len(self._left) // WIDTH)
        lists = self._lists(blocks)
        hopeful = self._left[np.argsort(self._hopes[self._left], kind="stable")]
        # The last block is filled up with copies of its last candidate.
        places = np.minimum(np.arange(blocks * WIDTH), len(hopeful) - 1)
        bound = np.array([np.inf])
        shares = 1 if blocks < _WORTH_SHARING else self._crew.threads

        def share(first: int) -> None:
            searching.search(
                self._values, self._order, hopeful[places], first, shares, lists.taken, lists.near,
                lists.rows, lists.reach, lists.visits, self._ranks, lists.pace, bound, shortfalls, self._hopes,
            )  # fmt: skip

        shortfalls = np.full(len(self._values), np.inf)
        self._crew.each(share, range(shares))
        return shortfalls[self._left]

    def _lists(self, blocks: int) -> _Lists:
        """The nearest few of each row in the columns taken, more of them where more candidates use them."""
        count = len(self._ranks)
        length = list_length(blocks, len(self._taken), count)
        taken = self._values[self._taken]
        packs = np.full((len(taken), -(-count // WIDTH), WIDTH), np.inf)
        packs.reshape(len(taken), -1)[:, :count] = taken
        capacity = min(count - 1, 2 * length)
        near = np.empty((count, capacity + searching.STRIDE))
        rows = np.empty((count, capacity + searching.STRIDE), dtype=np.uint32)
        reach, foreseen = np.empty(count), np.empty(count)
        step = -(-count // (_SHARES * self._crew.threads))

        def share(start: int) -> None:
            searching.nearest_few(
                packs, start, min(start + step, count), length, near, rows, reach, self._ranks, foreseen
            )  # fmt: skip

        self._crew.each(share, range(0, count, step))
        visits = np.argsort(-foreseen, kind="stable")
        pace = np.cumsum(foreseen[visits])
        pace /= max(pace[-1], 1.0)
        return _Lists(np.ascontiguousarray(taken.T), near, rows, reach, visits, pace)


@dataclass(frozen=True)
class _Lists:
    """The rows near each row in X, the s columns taken.

    taken: (N, s) float64, X. near: (N, k) float64 squared distances in X, ascending, each list ended by inf; rows:
    (N, k) uint32, whose they are. reach: (N,) float64, which no row outside the list is nearer than. visits: (N,)
    int64, the rows, those first that are likely to fall short most. pace: (N,) float64, the part of the whole
    shortfall that is foreseen to be known after each visit.
    """

    taken: Floats
    near: Floats
    rows: NDArray[np.uint32]
    reach: Floats
    visits: Integers
    pace: Floats


def list_length(blocks: int, taken: int, count: int) -> int:
    """About how many rows to list for each of `count`, where `blocks` blocks search beside `taken` columns.

    Measured: weighs the time of building lists against that of running past their ends. No result depends on it.
    """
    length = (32 + 64 / taken) * max(1.0, blocks / 8) ** 0.25 * max(1.0, count / 1000) ** 0.5
    return min(count - 1, int(length))
