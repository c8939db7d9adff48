from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from oubli.components.lfoci.engines.simd import WIDTH, load, pick, some, spread, store


@njit
def arithmetic(a: Any, b: Any, out: Any) -> None:
    x, y = load(a, 1), load(b, 0)
    store(out, 0, x + y)
    store(out, 1, x - y)
    store(out, 2, x * y)
    store(out, 3, x * y + x)
    store(out, 4, pick(x < y, x, spread(7.0)))
    store(out, 5, pick(x <= y, x, spread(7.0)))
    store(out, 6, pick((x < y) & (spread(0.0) < x), x, spread(7.0)))


@njit
def any_below(a: Any, bound: float) -> bool:
    return some(load(a, 0) < spread(bound))


def test_every_operation_is_that_of_numpy_bit_for_bit() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.standard_normal((2, 2, WIDTH))
    b[0, 2] = a[1, 2]
    out = np.empty((7, WIDTH))
    arithmetic(a, b, out)
    x, y = a[1], b[0]
    expected = [x + y, x - y, x * y, x * y + x]
    expected += [np.where(x < y, x, 7), np.where(x <= y, x, 7), np.where((x < y) & (x > 0), x, 7)]
    np.testing.assert_array_equal(out, expected)


def test_some_looks_at_every_lane() -> None:
    for lane in range(WIDTH):
        a = np.ones((1, WIDTH))
        a[0, lane] = -1.0
        assert any_below(a, 0.0)
    assert not any_below(np.ones((1, WIDTH)), 1.0)
    assert not any_below(np.full((1, WIDTH), np.nan), 1.0)
