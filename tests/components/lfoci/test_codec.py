from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.lfoci import codec, l_codec

COUNT = 1000


def by_definition(y: np.ndarray, z: np.ndarray, x: np.ndarray | None, draws: np.random.Generator) -> float | None:
    """Both coefficients in plain loops, from the formulas of [AC21]; z and x are (N, q)."""
    count = len(y)
    rank = [sum(y[j] <= y[i] for j in range(count)) for i in range(count)]
    above = [sum(y[j] >= y[i] for j in range(count)) for i in range(count)]

    def neighbour(points: np.ndarray, i: int) -> int:
        distance = {j: math.fsum((points[i] - points[j]) ** 2) for j in range(count) if j != i}
        nearest = [j for j in distance if distance[j] == min(distance.values())]
        return int(draws.choice(nearest))

    if x is None:
        m = [neighbour(z, i) for i in range(count)]
        below = sum(above[i] * (count - above[i]) for i in range(count))
        over = sum(count * min(rank[i], rank[m[i]]) - above[i] ** 2 for i in range(count))
    else:
        m = [neighbour(np.hstack([x, z]), i) for i in range(count)]
        n = [neighbour(x, i) for i in range(count)]
        below = sum(rank[i] - min(rank[i], rank[n[i]]) for i in range(count))
        over = sum(min(rank[i], rank[m[i]]) - min(rank[i], rank[n[i]]) for i in range(count))
    return None if below == 0 else over / below


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 14), given_columns=st.integers(0, 2))
def test_both_follow_the_definition_without_ties(seed: int, count: int, given_columns: int) -> None:
    draw = np.random.default_rng(seed)
    # A coarse response has ties of its own, which the ranks must count.
    y = np.round(draw.standard_normal(count), int(draw.integers(0, 3)))
    z = draw.standard_normal((count, 2))
    x = draw.standard_normal((count, given_columns)) if given_columns else None
    expected = by_definition(y, z, x, draw)
    for found in (
        codec(y, z, x, generator=draw),
        l_codec(y, z, x, noise_scale=1e-12, generator=draw),
    ):
        assert found == pytest.approx(expected, abs=1e-12)


def test_tied_neighbours_are_drawn_uniformly() -> None:
    y = np.array([0.0, 1.0, 2.0, 3.0])
    z = np.zeros(4)
    draw = np.random.default_rng(0)
    draws = [codec(y, z, generator=draw) for _ in range(3000)]
    # By hand: ranks 1 to 4, each of 3 tied neighbours as likely: E sum_i min(R_i, R_M(i)) = 20/3.
    expected = (4 * 20 / 3 - 30) / 10
    assert np.mean(draws) == pytest.approx(expected, abs=4 * np.std(draws) / math.sqrt(len(draws)))


@pytest.mark.parametrize("coefficient", [codec, l_codec])
def test_a_binary_response_is_a_function_of_itself_plus_small_noise(coefficient) -> None:
    draw = np.random.default_rng(1)
    y = draw.integers(0, 2, COUNT)
    z = y + 0.01 * draw.standard_normal(COUNT)
    assert coefficient(y, z, generator=draw) == 1.0


@pytest.mark.parametrize("coefficient", [codec, l_codec])
@pytest.mark.parametrize("seed", range(3))
def test_independent_columns_score_about_0(coefficient, seed: int) -> None:
    draw = np.random.default_rng(seed)
    y, z, x = draw.standard_normal((3, COUNT))
    bound = 3 / math.sqrt(COUNT)
    assert abs(coefficient(y, z, generator=draw)) < bound
    assert abs(coefficient(y, z, x, generator=draw)) < bound


def test_the_noise_does_the_work_of_tie_breaking() -> None:
    draw = np.random.default_rng(2)
    z = draw.integers(0, 5, COUNT)
    y = z + draw.standard_normal(COUNT)
    exact = np.mean([codec(y, z, generator=draw) for _ in range(20)])
    noisy = np.mean([l_codec(y, z, generator=draw) for _ in range(20)])
    assert noisy == pytest.approx(exact, abs=0.02)


# Rows in the response's own order: neighbours picked by row would look like knowledge.
@pytest.mark.parametrize("constant", [np.zeros(COUNT), np.full(COUNT, 0.1), np.full((COUNT, 2), 1e8)])
def test_a_column_that_does_not_vary_draws_neighbours_at_random(constant: np.ndarray) -> None:
    draw = np.random.default_rng(7)
    y = np.arange(COUNT, dtype=float)
    exact = np.mean([codec(y, constant, generator=draw) for _ in range(5)])
    assert exact == pytest.approx(0.0, abs=0.1)
    assert np.mean([l_codec(y, constant, generator=draw) for _ in range(5)]) == pytest.approx(exact, abs=0.1)
    z = draw.standard_normal(COUNT)
    assert np.mean([l_codec(y, z, constant, generator=draw) for _ in range(5)]) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("tiny", [1e-165, 1e-200, 1e-300])
def test_a_spread_whose_square_underflows_draws_neighbours_at_random(tiny: float) -> None:
    draw = np.random.default_rng(8)
    y = np.arange(COUNT, dtype=float)
    # The column of ones sets the scale that both share.
    columns = np.stack([np.ones(COUNT), tiny * (np.arange(COUNT) % 2)], axis=1)
    exact = np.mean([codec(y, columns, generator=draw) for _ in range(5)])
    assert np.mean([l_codec(y, columns, generator=draw) for _ in range(5)]) == pytest.approx(exact, abs=0.1)
    assert exact == pytest.approx(0.0, abs=0.1)


def test_a_constant_column_beside_others_changes_nothing() -> None:
    draw = np.random.default_rng(9)
    z = draw.standard_normal((COUNT, 2))
    y = z[:, 0] + 0.1 * draw.standard_normal(COUNT)
    beside = np.concatenate([z, np.full((COUNT, 1), 1e6)], axis=1)
    alone = l_codec(y, z, generator=np.random.default_rng(0))
    assert l_codec(y, beside, generator=np.random.default_rng(0)) == pytest.approx(alone, abs=1e-3)


def test_noise_beside_a_large_offset_still_breaks_ties() -> None:
    draw = np.random.default_rng(10)
    y = np.arange(COUNT, dtype=float)
    z = 1e8 + 1e-6 * (np.arange(COUNT) % 2)
    assert np.mean([l_codec(y, z, generator=draw) for _ in range(5)]) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("noise_scale", [0.0, -1.0, math.nan, math.inf])
def test_a_noise_scale_that_is_no_positive_number(noise_scale: float) -> None:
    draw = np.random.default_rng(11)
    y, z = draw.standard_normal((2, 10))
    with pytest.raises(ConfigurationError, match="noise_scale: expected a positive number"):
        l_codec(y, z, noise_scale=noise_scale, generator=draw)


@pytest.mark.parametrize("coefficient", [codec, l_codec])
def test_nothing_left_to_explain(coefficient) -> None:
    draw = np.random.default_rng(3)
    z = draw.standard_normal(50)
    assert coefficient(np.ones(50), z, generator=draw) is None
    explained = np.repeat([0.0, 1.0], 25)
    assert coefficient(explained, z, explained * 10, generator=draw) is None


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_scale_does_not_matter(scale: float) -> None:
    draw = np.random.default_rng(4)
    z = np.exp2(draw.integers(-8, 8, (60, 2)))
    y = z[:, 0] + draw.standard_normal(60)
    power = math.ldexp(1.0, math.frexp(scale)[1])
    expected = codec(y, z, generator=np.random.default_rng(0))
    assert codec(y, z * power, generator=np.random.default_rng(0)) == expected


def test_tensors_and_arrays_are_the_same() -> None:
    draw = np.random.default_rng(5)
    y, z = draw.standard_normal((2, 80)).astype(np.float32)
    of_tensors = codec(torch.from_numpy(y), torch.from_numpy(z), generator=draw)
    assert of_tensors == codec(y, z, generator=draw)


@pytest.mark.parametrize("coefficient", [codec, l_codec])
def test_input_that_cannot_be_used(coefficient) -> None:
    draw = np.random.default_rng(6)
    y, z = draw.standard_normal(10), draw.standard_normal((10, 3))
    with pytest.raises(ConfigurationError, match="columns: expected 10 rows"):
        coefficient(y, z[:9], generator=draw)
    with pytest.raises(ConfigurationError, match="response: expected 1 axes"):
        coefficient(z, z, generator=draw)
    with pytest.raises(ConfigurationError, match="at least 2 rows"):
        coefficient(y[:1], z[:1], generator=draw)
    z[4, 2] = np.inf
    with pytest.raises(NonFiniteInput, match=r"column 2 of columns.*found inf in row 4"):
        coefficient(y, z, generator=draw)
    y[3] = np.nan
    with pytest.raises(NonFiniteInput, match=r"response: .*found nan in row 3"):
        coefficient(y, z, generator=draw)
