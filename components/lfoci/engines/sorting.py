"""The first step of L-FOCI on the CPU, compiled: columns sorted eight at a time, each by itself.

Axes: N rows, in descending order of the response; p columns; c candidates.

Where rounding makes two rows equally near, the one with the larger response is taken. Shapes and types are trusted:
cpu.py makes them.
"""

from __future__ import annotations

import numpy as np

from oubli.components.lfoci.engines import simd
from oubli.components.lfoci.engines.compiling import Floats, Integers, Rows, compiled_with
from oubli.components.lfoci.engines.simd import WIDTH, load, pick, store

kernel = compiled_with(simd)


@kernel
def sort(values: Floats, columns: Integers, order: Rows) -> None:
    """Fill row c of (p, N) `order` with the order that sorts row c of (p, N) `values`, for each c of `columns`.

    Batcher's merge exchange (Knuth, The Art of Computer Programming, vol. 3, 5.2.2M) compares at places that do not
    depend on the values, so that eight columns are sorted side by side. A row's number rides in the last bits of its
    value; what the lost bits leave out of order is then put right.
    """
    count = values.shape[1]
    keys = np.empty((count, WIDTH))
    bits = keys.view(np.int64)
    number = mask(count)
    for block in range(0, columns.size, WIDTH):
        lanes = min(WIDTH, columns.size - block)
        for lane in range(WIDTH):
            column = values[columns[block + min(lane, lanes - 1)]]
            for row in range(count):
                keys[row, lane] = column[row]
        for row in range(count):
            for lane in range(WIDTH):
                bits[row, lane] = (bits[row, lane] & ~number) | row
        merge_exchange(keys)
        for lane in range(lanes):
            column, found = values[columns[block + lane]], order[columns[block + lane]]
            for place in range(count):
                row = bits[place, lane] & number
                at = place
                while at > 0 and column[found[at - 1]] > column[row]:
                    found[at] = found[at - 1]
                    at -= 1
                found[at] = row


@kernel
def mask(count: int) -> int:
    """The bits that hold every number below `count`."""
    power = np.int64(1)
    while power < count:
        power *= 2
    return int(power - 1)


@kernel
def merge_exchange(keys: Floats) -> None:
    """Sort each of the 8 columns of (N, 8) `keys`."""
    count = keys.shape[0]
    top = 1
    while 2 * top < count:
        top *= 2
    step = top
    while step > 0:
        reach, offset, apart = top, 0, step
        while True:
            for start in range(offset, count - apart, 2 * step):
                for low in range(start, min(start + step, count - apart)):
                    first, second = load(keys, low), load(keys, low + apart)
                    swap = second < first
                    store(keys, low, pick(swap, second, first))
                    store(keys, low + apart, pick(swap, first, second))
            if reach == step:
                break
            apart = reach - step
            reach //= 2
            offset = step
        step //= 2


@kernel
def adjacent(values: Floats, columns: Integers, order: Rows, ranks: Integers) -> Floats:
    """(c,) float64 shortfalls of `columns` of the (p, N) values, each by itself, given their sorted order."""
    count = values.shape[1]
    found = np.empty(columns.size)
    ordered = np.empty(count + 4)
    rank = np.empty(count + 4, dtype=np.int64)
    # Beyond both ends, far off and each at a distance of its own.
    ordered[0], ordered[1], ordered[count + 2], ordered[count + 3] = -1e150, -1e140, 1e140, 1e150
    for c in range(columns.size):
        column, sorted_rows = values[columns[c]], order[columns[c]]
        for place in range(count):
            ordered[place + 2] = column[sorted_rows[place]]
            rank[place + 2] = ranks[sorted_rows[place]]
        total, tied = 0, False
        for place in range(2, count + 2):
            here = ordered[place]
            left, right = (here - ordered[place - 1]) ** 2, (ordered[place + 1] - here) ** 2
            nearest = rank[place - 1] if left < right else rank[place + 1]
            total += max(0, rank[place] - nearest)
            tied |= left == right
            tied |= left == (here - ordered[place - 2]) ** 2
            tied |= right == (ordered[place + 2] - here) ** 2
        found[c] = _adjacent_tied(column, sorted_rows, ranks) if tied else total
    return found


@kernel
def _adjacent_tied(column: Floats, order: Rows, ranks: Integers) -> int:
    """The same for one column in which rounding makes some rows equally near."""
    total = 0
    for place in range(column.size):
        row = order[place]
        nearest, gap = np.int64(-1), np.inf
        for side in (-1, 1):
            at = place + side
            while 0 <= at < column.size:
                distance = (column[order[at]] - column[row]) ** 2
                if distance > gap:
                    break
                if distance < gap or np.int64(order[at]) < nearest:
                    nearest, gap = np.int64(order[at]), distance
                at += side
        total += max(0, ranks[row] - ranks[nearest])
    return total
