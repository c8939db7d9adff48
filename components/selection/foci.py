"""L-FOCI: the columns that carry what is known about a response, in order [AC21, section 5; M22, section 4].

Axes: N samples (rows), p columns (slices), q of them not constant, k neighbours kept for each row.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.selection.columns import NOISE_SCALE, Columns, as_rows
from oubli.components.selection.ranks import Ranks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_NEIGHBOURS = 32  # a candidate's nearest point is nearly always among a row's nearest few so far


class StopReason(StrEnum):
    """Why a selection ended."""

    NO_GAIN = "no gain left"
    EXPLAINED = "response explained"
    ALL_TAKEN = "every column taken"
    CONSTANT_RESPONSE = "constant response"
    NO_USABLE_COLUMNS = "no usable columns"
    LIMIT = "limit"


@dataclass(frozen=True)
class Selection:
    """What L-FOCI selected, and why it stopped.

    order: columns, in the order taken; scores: T(Y, Z) of the first and T(Y, Z | X) of each later one, all
    positive. stop_score: the largest score that was left, not positive, where `stop` is NO_GAIN; None
    otherwise. constant: columns set aside because they do not vary. noise_scale: that of L-CODEC's noise.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]
    stop: StopReason
    stop_score: float | None
    constant: tuple[int, ...]
    noise_scale: float


def l_foci(
    activations: ArrayLike | Tensor,
    losses: ArrayLike | Tensor,
    *,
    noise_scale: float = NOISE_SCALE,
    generator: np.random.Generator,
    max_columns: int | None = None,
) -> Selection:
    """Select columns of (N, p) `activations` that together explain the (N,) `losses`; N from 2, p from 1.

    Columns are standardised, constant ones set aside, and noise of `noise_scale` standard deviations drawn
    from `generator` for each of the others, in order. Then the column with the largest T(Y, Z), and again
    and again the one with the largest T(Y, Z | X), X being those taken so far, until the largest is <= 0.
    Equal scores: the lower column. At most `max_columns` are taken.

    Raises NonFiniteInput, naming the column, for NaN or infinity; ConfigurationError for shapes that do not
    match.
    """
    table = as_rows(activations, "activations", 2)
    response = as_rows(losses, "losses", 1).astype(np.float64)
    if len(table) != len(response):
        raise ConfigurationError(
            f"losses: expected {len(table)} rows, as the activations have, found {len(response)}.",
            remedy="Pass one loss for each row of activations.",
        )
    if max_columns is not None and max_columns < 1:
        raise ConfigurationError(f"max_columns: expected at least 1, found {max_columns}.")
    ranks = Ranks.of(response)
    columns = Columns.of(table, noise_scale=noise_scale, generator=generator)

    def ended(stop: StopReason, stop_score: float | None = None) -> Selection:
        places = tuple(int(columns.kept[column]) for column in order)
        return Selection(places, tuple(scores), stop, stop_score, columns.constant, noise_scale)

    order: list[int] = []
    scores: list[float] = []
    given = 0  # shortfall of the columns taken
    if ranks.constant:
        return ended(StopReason.CONSTANT_RESPONSE)
    if len(columns.values) == 0:
        return ended(StopReason.NO_USABLE_COLUMNS)
    distances = np.zeros((len(table), len(table)))
    np.fill_diagonal(distances, np.inf)
    while True:
        column, shortfall = _best(columns.values, order, distances, ranks)
        score = ranks.conditional(shortfall, given) if order else ranks.unconditional(shortfall)
        if score is None or score <= 0.0:
            return ended(StopReason.NO_GAIN, score)
        order.append(column)
        scores.append(score)
        given = shortfall
        if given == 0:
            return ended(StopReason.EXPLAINED)
        if len(order) == len(columns.values):
            return ended(StopReason.ALL_TAKEN)
        if len(order) == max_columns:
            return ended(StopReason.LIMIT)
        taken = columns.values[column]
        distances += (taken[:, None] - taken) ** 2


def _best(columns: Floats, order: list[int], distances: Floats, ranks: Ranks) -> tuple[int, int]:
    """The column whose neighbours, beside those taken, fall short least in rank; and by how much."""
    nearest, near = _nearest_few(distances)
    best = (0, -1)
    for candidate, values in enumerate(columns):
        if candidate in order:
            continue
        neighbours = _neighbours(values, distances, nearest, near) if order else _adjacent(values)
        shortfall = ranks.shortfall(neighbours)
        if best[1] < 0 or shortfall < best[1]:
            best = (candidate, shortfall)
    return best


def _adjacent(values: Floats) -> Integers:
    """Nearest other of each of (N,) values: one of the two beside it once they are sorted."""
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order])
    left = np.concatenate([[np.inf], gaps])
    right = np.concatenate([gaps, [np.inf]])
    step = np.where(left <= right, -1, 1)
    found = np.empty(len(values), dtype=np.int64)
    found[order] = order[np.arange(len(values)) + step]
    return found


def _nearest_few(distances: Floats) -> tuple[Integers, Floats]:
    """(N, k) int64 rows nearest to each row in the columns taken, and their squared distances, ascending."""
    count = min(_NEIGHBOURS, len(distances) - 1)
    few = np.argpartition(distances, count - 1, axis=1)[:, :count].astype(np.int64)
    few = np.take_along_axis(few, np.argsort(np.take_along_axis(distances, few, 1), axis=1, kind="stable"), 1)
    return few, np.take_along_axis(distances, few, 1)


def _neighbours(values: Floats, distances: Floats, nearest: Integers, near: Floats) -> Integers:
    """Nearest other of each row in the columns taken and `values` together.

    It is among the row's nearest few unless all of those are farther than the last of them is without
    `values`: then every row is looked at.
    """
    rows = np.arange(len(values))
    reach = near + (values[nearest] - values[:, None]) ** 2
    place = reach.argmin(axis=1)
    found: Integers = nearest[rows, place]
    (open_rows,) = np.nonzero(reach[rows, place] > near[:, -1])
    if nearest.shape[1] < len(values) - 1 and len(open_rows):
        found[open_rows] = (distances[open_rows] + (values - values[open_rows, None]) ** 2).argmin(axis=1)
    return found
