from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.selection import Selection, StopReason, l_foci


def nearest_other(distances: np.ndarray) -> np.ndarray:
    masked = distances.copy()
    np.fill_diagonal(masked, np.inf)
    return masked.argmin(axis=1)


def naive(activations: np.ndarray, losses: np.ndarray, noise_scale: float, seed: int) -> tuple[list[int], list[float]]:
    """L-FOCI straight from the formulas: a full N x N distance matrix for each candidate at each step."""
    draw = np.random.default_rng(seed)
    count, width = activations.shape
    noisy = {}
    for column in range(width):
        z = activations[:, column].astype(np.float64)
        if z.max() == z.min():
            continue
        z = np.ldexp(z, -np.frexp(np.abs(z).max())[1])
        z = z - z.mean()
        z = np.ldexp(z, -np.frexp(np.abs(z).max())[1])
        z = z / z.std()
        noisy[column] = z + noise_scale * z.std() * draw.standard_normal(count)
    rank = np.array([(losses <= y).sum() for y in losses])
    above = np.array([(losses >= y).sum() for y in losses])
    order: list[int] = []
    scores: list[float] = []
    taken = np.zeros((count, count))
    while len(order) < len(noisy) and (above * (count - above)).sum():
        if order:
            given_x = np.minimum(rank, rank[nearest_other(taken)])
            if (rank - given_x).sum() == 0:
                break
        score = {}
        for column, z in noisy.items():
            if column in order:
                continue
            reached = np.minimum(rank, rank[nearest_other(taken + (z[:, None] - z) ** 2)])
            if order:
                score[column] = (reached - given_x).sum() / (rank - given_x).sum()
            else:
                score[column] = (count * reached - above**2).sum() / (above * (count - above)).sum()
        best = max(score, key=lambda column: (score[column], -column))
        if score[best] <= 0:
            break
        order.append(best)
        scores.append(score[best])
        taken += (noisy[best][:, None] - noisy[best]) ** 2
    return order, scores


def agree(found: Selection, expected: tuple[list[int], list[float]]) -> None:
    assert list(found.order) == expected[0]
    assert found.scores == pytest.approx(expected[1], abs=1e-12)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Continuous, tied, duplicated and constant columns of any scale; a response that may depend on them."""
    count, width = draw(st.integers(2, 60)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    table = random.standard_normal((count, width))
    for column in range(width):
        kind = draw(st.sampled_from(["continuous", "coarse", "binary", "relu", "duplicate", "constant"]))
        if kind == "coarse":
            table[:, column] = np.round(table[:, column])
        elif kind == "binary":
            table[:, column] = table[:, column] > 0
        elif kind == "relu":
            table[:, column] = np.maximum(table[:, column], 0)
        elif kind == "duplicate":
            table[:, column] = table[:, int(random.integers(0, width))]
        elif kind == "constant":
            table[:, column] = table[0, column]
    used = random.integers(0, width, 3)
    losses = (
        table[:, used[0]] * table[:, used[1]]
        + table[:, used[2]]
        + draw(st.sampled_from([0.0, 0.1, 10.0])) * random.standard_normal(count)
    )
    if draw(st.booleans()):
        losses = np.round(losses)
    # Powers of two are exact, so that the oracle's own rescaling meets the same numbers.
    return table * np.ldexp(1.0, draw(st.sampled_from([-1000, -100, 0, 100, 900]))), losses


@settings(max_examples=300, deadline=None)
@given(table=tables(), seed=st.integers(0, 2**32))
def test_order_and_scores_are_those_of_the_definition(table: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    activations, losses = table
    found = l_foci(activations, losses, generator=np.random.default_rng(seed))
    agree(found, naive(activations, losses, found.noise_scale, seed))


@pytest.mark.parametrize(("count", "width"), [(200, 60), (600, 8)])
def test_rows_whose_neighbour_lies_far_down_the_list(count: int, width: int) -> None:
    draw = np.random.default_rng(count)
    activations = np.maximum(draw.standard_normal((count, 6)) @ draw.standard_normal((6, width)), 0)
    losses = activations[:, 0] * activations[:, 1] - activations[:, 2] ** 2
    found = l_foci(activations, losses, generator=np.random.default_rng(3))
    agree(found, naive(activations, losses, found.noise_scale, 3))


def test_it_finds_the_columns_that_matter_and_says_why_it_stopped() -> None:
    draw = np.random.default_rng(0)
    activations = draw.standard_normal((1000, 30))
    losses = activations[:, 4] + activations[:, 17] ** 2
    found = l_foci(activations, losses, generator=draw)
    assert set(found.order) == {4, 17}
    assert found.stop is StopReason.NO_GAIN
    assert found.stop_score is not None
    assert found.stop_score <= 0 < min(found.scores)
    assert found.constant == ()


def test_a_constant_column_is_never_selected() -> None:
    draw = np.random.default_rng(1)
    activations = draw.standard_normal((50, 5))
    activations[:, [0, 3]] = [7.0, 1e-30]
    for seed in range(20):
        found = l_foci(activations, draw.standard_normal(50), generator=np.random.default_rng(seed), max_columns=5)
        assert found.constant == (0, 3)
        assert not {0, 3} & set(found.order)


def test_every_other_reason_to_stop() -> None:
    draw = np.random.default_rng(2)
    activations = draw.standard_normal((200, 3))

    def reason(table: np.ndarray, losses: np.ndarray, limit: int | None = None) -> Selection:
        return l_foci(table, losses, generator=draw, max_columns=limit)

    constant = reason(activations, np.full(200, 3.0))
    assert (constant.stop, constant.order) == (StopReason.CONSTANT_RESPONSE, ())
    unusable = reason(np.ones((200, 3)), activations[:, 0])
    assert (unusable.stop, unusable.constant) == (StopReason.NO_USABLE_COLUMNS, (0, 1, 2))
    two_clusters = activations + 10 * (activations[:, 1:2] > 0) * [0, 1, 0]
    explained = reason(two_clusters, activations[:, 1] > 0)
    assert (explained.stop, explained.order, explained.scores) == (StopReason.EXPLAINED, (1,), (1.0,))
    assert reason(activations, activations.sum(axis=1)).stop is StopReason.ALL_TAKEN
    assert reason(activations, activations.sum(axis=1), 2).stop is StopReason.LIMIT
    assert len(reason(activations, activations.sum(axis=1), 2).order) == 2


@settings(max_examples=200, deadline=None)
@given(
    activations=arrays(np.float64, (7, 3), elements=st.floats(allow_nan=False, allow_infinity=False)),
    losses=arrays(np.float64, 7, elements=st.floats(allow_nan=False, allow_infinity=False)),
)
def test_no_finite_input_gives_nan(activations: np.ndarray, losses: np.ndarray) -> None:
    found = l_foci(activations, losses, generator=np.random.default_rng(0))
    assert np.isfinite(found.scores).all()
    assert all(score > 0 for score in found.scores)
    assert found.stop_score is None or found.stop_score <= 0
    assert not set(found.constant) & set(found.order)


def test_the_generator_decides_and_nothing_else() -> None:
    draw = np.random.default_rng(3)
    activations = np.round(draw.standard_normal((300, 10)))
    losses = activations[:, 0] + draw.standard_normal(300)
    first = l_foci(activations, losses, generator=np.random.default_rng(5))
    assert first == l_foci(activations, losses, generator=np.random.default_rng(5))
    assert first == l_foci(torch.from_numpy(activations), torch.from_numpy(losses), generator=np.random.default_rng(5))


def test_input_that_cannot_be_used() -> None:
    draw = np.random.default_rng(4)
    activations, losses = draw.standard_normal((10, 4)), draw.standard_normal(10)
    with pytest.raises(ConfigurationError, match="losses: expected 10 rows"):
        l_foci(activations, losses[:9], generator=draw)
    with pytest.raises(ConfigurationError, match="activations: expected 2 axes"):
        l_foci(losses, losses, generator=draw)
    with pytest.raises(ConfigurationError, match="noise_scale"):
        l_foci(activations, losses, noise_scale=0.0, generator=draw)
    with pytest.raises(ConfigurationError, match="max_columns"):
        l_foci(activations, losses, generator=draw, max_columns=0)
    activations[6, 2] = np.nan
    with pytest.raises(NonFiniteInput, match=r"column 2 of activations.*found nan in row 6"):
        l_foci(activations, losses, generator=draw)
    with pytest.raises(NonFiniteInput, match="losses"):
        l_foci(np.nan_to_num(activations), np.where(losses > 0, np.inf, losses), generator=draw)
