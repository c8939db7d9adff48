from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numba import njit

from benchmarks.trained import TrainedNetwork
from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.lfoci import Selection, StopReason, l_foci, l_foci_many
from oubli.components.lfoci.columns import BLOCK, Columns
from oubli.components.lfoci.engines import cpu
from oubli.components.lfoci.ranks import Ranks
from oubli.components.lfoci.threads import Crew

Nearest = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def nearest_other(taken: np.ndarray, z: np.ndarray, larger: np.ndarray) -> np.ndarray:
    """For each row the nearest other in X, by its (N, N) squared distances `taken`, and (N,) z together.

    Of rows that rounding makes equally near, the nearer in X, then the one with the larger response (`larger`: (N,)
    places in that order).
    """
    distances = taken + (z[:, None] - z) ** 2
    np.fill_diagonal(distances, np.inf)
    return np.lexsort((np.broadcast_to(larger, distances.shape), taken, distances), axis=1)[:, 0]


@njit
def nearest_other_compiled(taken: np.ndarray, z: np.ndarray, larger: np.ndarray) -> np.ndarray:
    """The same in plain loops, for tables of a size that numpy takes minutes for."""
    nearest = np.full(len(z), -1)
    for i in range(len(z)):
        least = np.inf
        for j in range(len(z)):
            distance = taken[i, j] + (z[i] - z[j]) ** 2
            if j == i or distance > least:
                continue
            best = nearest[i]
            if (
                distance < least
                or taken[i, j] < taken[i, best]
                or (taken[i, j] == taken[i, best] and larger[j] < larger[best])
            ):
                least, nearest[i] = distance, j
    return nearest


def naive(
    activations: np.ndarray,
    losses: np.ndarray,
    noise_scale: float,
    generator: np.random.Generator,
    nearest_other: Nearest = nearest_other,
) -> tuple[list[int], list[float]]:
    """L-FOCI straight from the formulas: every distance, for each candidate at each step."""
    count, width = activations.shape
    blocks = [range(start, min(start + BLOCK, width)) for start in range(0, width, BLOCK)]
    children = generator.spawn(len(blocks))
    noise = np.concatenate(
        [child.standard_normal((len(block), count)) for child, block in zip(children, blocks, strict=True)]
    )
    noisy = {}
    for column in range(width):
        z = activations[:, column].astype(np.float64)
        if z.max() == z.min():
            continue
        z = np.ldexp(z, -np.frexp(np.abs(z).max())[1])
        z = z - z.mean()
        z = np.ldexp(z, -np.frexp(np.abs(z).max())[1])
        z = z / np.sqrt((z * z).mean())
        noisy[column] = z + noise_scale * noise[column]
    rank = np.array([(losses <= y).sum() for y in losses])
    above = np.array([(losses >= y).sum() for y in losses])
    larger = np.argsort(np.argsort(-losses, kind="stable"))
    order: list[int] = []
    scores: list[float] = []
    taken = np.zeros((count, count))
    given_x = np.zeros(count, dtype=np.int64)
    while len(order) < len(noisy) and (above * (count - above)).sum():
        score = {}
        reached = {}
        for column, z in noisy.items():
            if column in order:
                continue
            reached[column] = np.minimum(rank, rank[nearest_other(taken, z, larger)])
            if order:
                score[column] = (reached[column] - given_x).sum() / (rank - given_x).sum()
            else:
                score[column] = (count * reached[column] - above**2).sum() / (above * (count - above)).sum()
        best = max(score, key=lambda column: (score[column], -column))
        if score[best] <= 0:
            break
        order.append(best)
        scores.append(score[best])
        given_x = reached[best]
        if (rank - given_x).sum() == 0:
            break
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


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(table=tables(), seed=st.integers(0, 2**32), length=st.sampled_from([None, 1, 3, 10]))
def test_order_and_scores_are_those_of_the_definition(
    table: tuple[np.ndarray, np.ndarray], seed: int, length: int | None
) -> None:
    activations, losses = table
    with pytest.MonkeyPatch.context() as patch:
        if length is not None:
            # Short lists: the searches then run past their end, which they rarely do in small tables.
            patch.setattr(cpu, "list_length", lambda blocks, taken, rows: min(length, rows - 1))
        found = l_foci(activations, losses, generator=np.random.default_rng(seed))
    agree(found, naive(activations, losses, found.noise_scale, np.random.default_rng(seed)))


@pytest.mark.parametrize("length", [None, 2, 8])
@pytest.mark.parametrize(("count", "width"), [(300, 40), (600, 12)])
def test_long_tables_with_half_of_each_column_tied(
    count: int, width: int, length: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(count)
    activations = np.maximum(draw.standard_normal((count, 6)) @ draw.standard_normal((6, width)), 0)
    losses = activations[:, 0] * activations[:, 1] - activations[:, 2] ** 2
    if length is not None:
        monkeypatch.setattr(cpu, "list_length", lambda blocks, taken, rows: length)
    found = l_foci(activations, losses, generator=np.random.default_rng(3))
    expected = naive(activations, losses, found.noise_scale, np.random.default_rng(3), nearest_other_compiled)
    assert len(expected[0]) > 2
    agree(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "width"), [(500, 1024), (2000, 64)])
def test_trained_activations(count: int, width: int) -> None:
    trained = TrainedNetwork(width).record(7, count)
    found = l_foci(trained.activations, trained.losses, generator=np.random.default_rng(4))
    expected = naive(
        trained.activations, trained.losses, found.noise_scale, np.random.default_rng(4), nearest_other_compiled
    )
    assert len(expected[0]) > 1
    agree(found, expected)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 150),
    length=st.sampled_from([1, 3, 1000]),
    digits=st.integers(0, 2),
    size=st.sampled_from([1.0, 1e-13]),
)
def test_equally_near_rows_are_told_apart_by_the_same_rule(
    seed: int, count: int, length: int, digits: int, size: float
) -> None:
    """Rounding may make ties that no noise breaks; here they are made on purpose, by columns without noise."""
    draw = np.random.default_rng(seed)
    width = int(draw.integers(1, 20))
    values = size * np.round(draw.standard_normal((width, count)), digits) + (size < 1)
    ranks = Ranks.of(-np.sort(-np.round(draw.standard_normal(count), 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "list_length", lambda blocks, taken, rows: min(length, rows - 1))
        engine = cpu.CpuEngine(Columns(values, np.arange(width), ()), ranks, Crew(1))
        taken = np.zeros((count, count))
        order: list[int] = []
        while len(order) < min(width, 4):
            shortfall = {
                column: ranks.shortfall(nearest_other_compiled(taken, values[column], np.arange(count)))
                for column in range(width)
                if column not in order
            }
            expected = min(shortfall, key=lambda column: (shortfall[column], column))
            assert engine.best() == (expected, shortfall[expected])
            engine.take(expected)
            order.append(expected)
            taken += (values[expected][:, None] - values[expected]) ** 2


def test_the_two_forms_of_the_oracle_agree() -> None:
    draw = np.random.default_rng(5)
    for count in (2, 3, 40):
        # Coarse, so that equal distances are common.
        taken = np.round(draw.random((count, count)) * 3)
        z, larger = np.round(draw.standard_normal(count)), draw.permutation(count)
        assert (nearest_other(taken, z, larger) == nearest_other_compiled(taken, z, larger)).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    draw = np.random.default_rng(6)
    activations = np.maximum(draw.standard_normal((300, 20)) @ draw.standard_normal((20, 400)), 0)
    losses = activations[:, 0] * activations[:, 1] + activations[:, 2]
    expected = l_foci(activations, losses, generator=np.random.default_rng(0), threads=1)
    assert len(expected.order) > 1
    assert l_foci(activations, losses, generator=np.random.default_rng(0), threads=threads) == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_many_at_once_are_the_same_as_one_by_one(threads: int) -> None:
    draw = np.random.default_rng(7)
    activations = draw.standard_normal((5, 80, 6))
    losses = activations[:, :, 1] + activations[:, :, 4] ** 2
    many = l_foci_many(activations, losses, generator=np.random.default_rng(0), threads=threads)
    children = np.random.default_rng(0).spawn(5)
    assert many == tuple(
        l_foci(table, response, generator=child)
        for table, response, child in zip(activations, losses, children, strict=True)
    )
    assert many == l_foci_many(
        torch.from_numpy(activations), list(losses), generator=np.random.default_rng(0), threads=threads
    )
    assert l_foci_many([], [], generator=draw) == ()


def test_selections_may_run_side_by_side() -> None:
    draw = np.random.default_rng(8)
    activations = draw.standard_normal((200, 200))
    losses = activations[:, 1] + activations[:, 4] ** 2

    def select(seed: int) -> Selection:
        return l_foci(activations, losses, generator=np.random.default_rng(seed), threads=2)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(select, range(6))) == [select(seed) for seed in range(6)]


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
    with pytest.raises(ConfigurationError, match="threads: expected at least 1, found 0"):
        l_foci(activations, losses, generator=draw, threads=0)
    with pytest.raises(ConfigurationError, match="device: expected cpu or a CUDA device that is present, found meta"):
        l_foci(activations, losses, generator=draw, device="meta")
    with pytest.raises(ConfigurationError, match="expected 2 responses, one for each table, found 1"):
        l_foci_many([activations] * 2, [losses], generator=draw)
    activations[6, 2] = np.nan
    with pytest.raises(NonFiniteInput, match=r"column 2 of activations.*found nan in row 6"):
        l_foci(activations, losses, generator=draw)
    with pytest.raises(NonFiniteInput, match="losses"):
        l_foci(np.nan_to_num(activations), np.where(losses > 0, np.inf, losses), generator=draw)
