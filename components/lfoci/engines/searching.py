"""The later steps of L-FOCI on the CPU, compiled: eight candidates search side by side in a register.

Axes: N rows, in descending order of the response; p columns; s columns taken, X; c candidates, z; k places
in a row's list; n = ceil(N / 8) packs of rows.

Squared distances are added in the order in which the columns were taken, and that of the candidate last.
Where rounding makes two rows equally near, the one nearer in X alone is taken, then the one with the larger
response. Shapes and types are trusted: cpu.py makes them.
"""

from __future__ import annotations

import numpy as np

from oubli.components.lfoci.engines import simd, sorting
from oubli.components.lfoci.engines.compiling import Floats, Integers, Rows, compiled_with
from oubli.components.lfoci.engines.simd import WIDTH, load, pick, some, spread, store
from oubli.components.lfoci.engines.sorting import mask, merge_exchange

kernel = compiled_with(simd, sorting)

STRIDE = 2  # places of a list walked between two looks at whether any lane goes on; each list ends in as many infs
_ROWS_BETWEEN_CHECKS = 16  # looking at the shared bound costs as much as a row's search
_FORESEEN = 4  # neighbours that tell how far a row will fall short; 2 to 16 do as well
_SAMPLED = 8  # a list's radius is the 8th smallest of a sample: its length then varies by a third


@kernel
def _distances(packs: Floats, row: int, out: Floats) -> None:
    """Fill (n, 8) `out` with the squared distances in X from `row`, infinite to itself.

    packs: (s, n, 8), X by column, its N rows eight at a time, then inf.
    """
    for pack in range(out.shape[0]):
        total = spread(0.0)
        for column in packs:
            gap = load(column, pack) - spread(column[row // WIDTH, row % WIDTH])
            total = total + gap * gap
        store(out, pack, total)
    out[row // WIDTH, row % WIDTH] = np.inf


@kernel
def _radius(distances: Floats, length: int) -> float:
    """A radius within which there are about `length` of the (N,) distances."""
    smallest = np.empty(_SAMPLED)
    for at in range(_SAMPLED):
        smallest[at] = np.inf
    for place in range(0, distances.size, max(1, length // _SAMPLED)):
        distance = distances[place]
        at = _SAMPLED - 1
        if distance < smallest[at]:
            while at > 0 and smallest[at - 1] > distance:
                smallest[at] = smallest[at - 1]
                at -= 1
            smallest[at] = distance
    return smallest[_SAMPLED - 1]  # type: ignore[no-any-return]


@kernel
def _within(distances: Floats, radius: float, out: Rows) -> int:
    """Write the rows nearer than `radius` to `out`, ascending; return how many. distances: (n, 8)."""
    found = 0
    limit = spread(radius)
    for pack in range(distances.shape[0]):
        if some(load(distances, pack) < limit):
            for lane in range(WIDTH):
                out[found] = pack * WIDTH + lane
                found += distances[pack, lane] < radius
    return found


@kernel
def _smallest(values: Floats, place: int) -> float:
    """What stands at `place` once the (N,) values are sorted; they are put into another order.

    Hoare's quickselect: numpy's partition gives the same number, and takes numba longer to compile than all kernels.
    """
    low, high = 0, values.size - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while pivot < values[right]:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if place <= right:
            high = right
        elif place >= left:
            low = left
        else:
            break
    return values[place]  # type: ignore[no-any-return]


# many parameters: numba compiles arrays, not objects, and every array is one that another kernel reads.
@kernel
def nearest_few(
    packs: Floats,
    start: int,
    stop: int,
    length: int,
    near: Floats,
    rows: Rows,
    reach: Floats,
    ranks: Floats,
    foreseen: Floats,
) -> None:
    """Fill the lists of rows start..stop: every row within a radius that holds about `length`.

    foreseen: (N,), how much a row falls short with its nearest few, on average.
    """
    count = near.shape[0]
    places = near.shape[1] - STRIDE
    distances = np.empty((WIDTH, packs.shape[1], packs.shape[2]))
    flat = distances.reshape(WIDTH, -1)[:, :count]
    inside = np.empty((WIDTH, count + 1), dtype=np.uint32)
    found = np.empty(WIDTH, dtype=np.int64)
    keys = np.empty((places, WIDTH))
    bits = keys.view(np.int64)
    number = mask(places)
    for first in range(start, stop, WIDTH):
        lanes = min(WIDTH, stop - first)
        keys[:] = np.inf
        longest = 0
        for lane in range(lanes):
            _distances(packs, first + lane, distances[lane])
            reach[first + lane] = np.inf if places == count - 1 else _radius(flat[lane], length)
            found[lane] = _within(distances[lane], reach[first + lane], inside[lane])
            if found[lane] > places or 4 * found[lane] < length:
                reach[first + lane] = _smallest(flat[lane].copy(), length)
                found[lane] = _within(distances[lane], reach[first + lane], inside[lane])
            longest = max(longest, found[lane])
            for place in range(found[lane]):
                keys[place, lane] = flat[lane, inside[lane, place]]
                bits[place, lane] = (bits[place, lane] & ~number) | place
        merge_exchange(keys[:longest])
        for lane in range(lanes):
            row = first + lane
            for place in range(found[lane]):
                other = inside[lane, bits[place, lane] & number]
                distance = flat[lane, other]
                at = place
                while at > 0 and near[row, at - 1] > distance:
                    near[row, at] = near[row, at - 1]
                    rows[row, at] = rows[row, at - 1]
                    at -= 1
                near[row, at] = distance
                rows[row, at] = other
            near[row, found[lane] : found[lane] + STRIDE] = np.inf
            rows[row, found[lane] : found[lane] + STRIDE] = row
            foreseen[row] = 0.0
            few = min(found[lane], _FORESEEN)
            for place in range(few):
                foreseen[row] += max(0.0, ranks[row] - ranks[rows[row, place]]) / few


# many parameters: as above.
# long: one loop, whose state is held in registers.
@kernel
def search(
    values: Floats,
    order: Rows,
    chosen: Integers,
    first: int,
    stride: int,
    taken: Floats,
    near: Floats,
    rows: Rows,
    reach: Floats,
    visits: Integers,
    ranks: Floats,
    pace: Floats,
    bound: Floats,
    shortfalls: Floats,
    hopes: Floats,
) -> None:
    """Shortfalls beside X of every `stride`-th block of 8 of the (c,) `chosen` columns, from block `first`.

    A block is abandoned once each of its candidates has fallen short by more than bound[0], the least so
    far of all threads. Writing it is a race that only costs time: a bound is always one that some candidate
    reached. shortfalls: (p,), written where exact. hopes: (p,), the same or, where abandoned, what it was
    heading for.
    """
    count = ranks.size
    z = np.empty((count, WIDTH))
    totals = np.empty((1, WIDTH))
    bests = np.empty((1, WIDTH))
    found = np.empty((1, WIDTH))
    finished = np.empty((1, WIDTH))
    zero, one, infinity = spread(0.0), spread(1.0), spread(np.inf)
    for block in range(first, chosen.size // WIDTH, stride):
        lanes = chosen[block * WIDTH : (block + 1) * WIDTH]
        for lane in range(WIDTH):
            column = values[lanes[lane]]
            for row in range(count):
                z[row, lane] = column[row]
        total = zero
        alive = zero < one
        visited = 0
        while visited < count:
            if visited % _ROWS_BETWEEN_CHECKS == 0:
                alive = alive & (total <= spread(bound[0]))
                if not some(alive):
                    break
            row = visits[visited]
            visited += 1
            here = load(z, row)
            # Nothing is nearer than 0: lanes that are out of the race ask for no further steps.
            best, rank = pick(alive, infinity, zero), zero
            k = 0
            while some(spread(near[row, k]) < best):
                for _ in range(STRIDE):
                    other = rows[row, k]
                    gap = load(z, other) - here
                    distance = spread(near[row, k]) + gap * gap
                    closer = distance < best
                    best = pick(closer, distance, best)
                    rank = pick(closer, spread(ranks[other]), rank)
                    k += 1
            if some(spread(reach[row]) <= best):
                store(bests, 0, best)
                store(found, 0, rank)
                for lane in range(WIDTH):
                    if reach[row] <= bests[0, lane]:
                        found[0, lane] = _outside(
                            values[lanes[lane]], order[lanes[lane]], taken, row, reach[row], bests[0, lane],
                            found[0, lane], ranks,
                        )  # fmt: skip
                rank = load(found, 0)
            lost = spread(ranks[row]) - rank
            total = total + pick(zero < lost, lost, zero)
        store(totals, 0, total)
        store(finished, 0, pick(alive, one, zero))
        for lane in range(WIDTH):
            if visited == count and finished[0, lane] == 1.0:
                shortfalls[lanes[lane]] = totals[0, lane]
                hopes[lanes[lane]] = totals[0, lane]
                bound[0] = min(bound[0], totals[0, lane])
            else:
                hopes[lanes[lane]] = totals[0, lane] / max(pace[visited - 1], 1e-3)


@kernel
def _outside(
    column: Floats,
    sorted_rows: Rows,
    taken: Floats,
    row: int,
    reach: float,
    best: float,
    rank: float,
    ranks: Floats,
) -> float:
    """Rank of the nearest other of `row` for one candidate, where its list ended before its search did.

    reach: where that was. best, rank: squared distance and rank of the nearest in the list. Walks outward
    from the row in the candidate's own order: a row outside the list is at least `reach` away in X.
    """
    here = column[row]
    low, high = 0, column.size
    while low < high:
        middle = (low + high) // 2
        if column[sorted_rows[middle]] < here:
            low = middle + 1
        else:
            high = middle
    alone, nearest = -1.0, np.int64(row)  # whatever the list holds is nearer in X than what it does not
    for start, side in ((low - 1, -1), (low, 1)):
        at = start
        while 0 <= at < column.size:
            other = sorted_rows[at]
            at += side
            if other == row:
                continue
            gap = column[other] - here
            if reach + gap * gap > best:
                break
            near = 0.0
            for place in range(taken.shape[1]):
                apart = taken[other, place] - taken[row, place]
                near += apart * apart
            distance = near + gap * gap
            if (
                distance < best
                or (distance == best and near < alone)
                or (distance == best and near == alone and other < nearest)
            ):
                best, alone, nearest = distance, near, np.int64(other)
    return ranks[nearest] if nearest != row else rank
