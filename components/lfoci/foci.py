"""L-FOCI: the columns that carry what is known about a response, in order [AC21, section 5; M22, section 4].

Axes: N samples (rows), p columns (slices), S tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.lfoci.columns import NOISE_SCALE, Columns, as_rows, refuse_non_finite
from oubli.components.lfoci.engines.cpu import CpuEngine
from oubli.components.lfoci.ranks import Ranks
from oubli.components.lfoci.threads import Crew


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

    Attributes:
        order: columns, in the order taken.
        scores: T(Y, Z) of the first and T(Y, Z | X) of each later one, all positive.
        stop: why no more were taken.
        stop_score: the largest score that was left, not positive, where `stop` is NO_GAIN; None otherwise.
        constant: columns set aside because they do not vary.
        noise_scale: of L-CODEC's noise, in standard deviations of a column.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]
    stop: StopReason
    stop_score: float | None
    constant: tuple[int, ...]
    noise_scale: float


class Engine(Protocol):
    """Finds the next column; every engine finds the same ones."""

    def best(self) -> tuple[int, int]:
        """The next column.

        Returns:
            The column whose neighbours, beside those taken, fall short least in rank (of equals, the lower column), and
            that shortfall.
        """
        ...

    def take(self, column: int) -> None:
        """Add `column` to those taken."""
        ...


def l_foci(
    activations: ArrayLike | Tensor,
    losses: ArrayLike | Tensor,
    *,
    noise_scale: float = NOISE_SCALE,
    generator: np.random.Generator,
    max_columns: int | None = None,
    threads: int | None = None,
    device: torch.device | str | None = None,
) -> Selection:
    """Select the columns of a table that together explain a response.

    Columns are standardised, constant ones set aside, and noise added to the others (columns.py). Then the column with
    the largest T(Y, Z) is taken, and again and again the one with the largest T(Y, Z | X), X being those taken so far,
    until the largest is <= 0. Of equal scores, the lower column is taken.

    Args:
        activations: (N, p) table; N from 2, p from 1.
        losses: (N,) response.
        noise_scale: standard deviation of the noise, in standard deviations of each column.
        generator: its children draw the noise.
        max_columns: the most columns taken; None for no limit.
        threads: on the CPU; None takes every core. The result does not depend on it.
        device: where to search; None for that of the activations. The result does not depend on it.

    Raises:
        NonFiniteInput: a value is NaN or infinite; the message names its column.
        ConfigurationError: the shapes do not match, or the device cannot be used.
    """
    place = _device(activations, device)
    with Crew(threads) as crew:
        return _select(activations, losses, noise_scale, generator, max_columns, crew, place)


def l_foci_many(
    activations: Sequence[ArrayLike] | Tensor,
    losses: Sequence[ArrayLike] | Tensor,
    *,
    noise_scale: float = NOISE_SCALE,
    generator: np.random.Generator,
    max_columns: int | None = None,
    threads: int | None = None,
    device: torch.device | str | None = None,
) -> tuple[Selection, ...]:
    """`l_foci` of many tables, several at once.

    On the CPU each thread makes whole selections, which keeps all of them busy where one small selection would not.

    Args:
        activations: S tables (N, p).
        losses: S responses (N,).
        noise_scale: as in `l_foci`.
        generator: selection i is that of `l_foci` with the i-th of `generator.spawn(S)`.
        max_columns: as in `l_foci`.
        threads: as in `l_foci`.
        device: as in `l_foci`.

    Returns:
        S selections, in the tables' order.

    Raises:
        NonFiniteInput: a value is NaN or infinite.
        ConfigurationError: the shapes or the numbers of tables and responses do not match, or the device cannot be
            used.
    """
    if len(activations) != len(losses):
        raise ConfigurationError(
            f"losses: expected {len(activations)} responses, one for each table, found {len(losses)}.",
            remedy="Pass as many responses as tables.",
        )
    generators = generator.spawn(len(activations))
    places = [_device(table, device) for table in activations]
    alone = Crew(1)

    def select(sample: int) -> Selection:
        return _select(
            activations[sample], losses[sample], noise_scale, generators[sample], max_columns, alone,
            places[sample],
        )  # fmt: skip

    with Crew(threads if all(place.type == "cpu" for place in places) else 1) as crew:
        return tuple(crew.each(select, range(len(generators))))


def _device(activations: ArrayLike | Tensor, device: torch.device | str | None) -> torch.device:
    if device is None:
        return activations.device if isinstance(activations, Tensor) else torch.device("cpu")
    return torch.device(device)


def _select(
    activations: ArrayLike | Tensor,
    losses: ArrayLike | Tensor,
    noise_scale: float,
    generator: np.random.Generator,
    max_columns: int | None,
    crew: Crew,
    device: torch.device,
) -> Selection:
    table = as_rows(activations, "activations", 2)
    response = as_rows(losses, "losses", 1).astype(np.float64)
    refuse_non_finite(response, "losses")
    if len(table) != len(response):
        raise ConfigurationError(
            f"losses: expected {len(table)} rows, as the activations have, found {len(response)}.",
            remedy="Pass one loss for each row of activations.",
        )
    if max_columns is not None and max_columns < 1:
        raise ConfigurationError(
            f"max_columns: expected at least 1, found {max_columns}.", remedy="None sets no limit."
        )
    # Descending, so that a search that is heading for too large a shortfall shows it in its first rows.
    rows = np.argsort(-response, kind="stable")
    ranks = Ranks.of(response[rows])
    columns = Columns.of(table, rows, noise_scale=noise_scale, generator=generator, crew=crew)
    engine = _engine(columns, ranks, crew, device)
    order, scores, stop, stop_score = _greedy(engine, ranks, len(columns.usable), max_columns)
    return Selection(order, scores, stop, stop_score, columns.constant, noise_scale)


def _engine(columns: Columns, ranks: Ranks, crew: Crew, device: torch.device) -> Engine:
    """The engine for `device`: the one place that chooses."""
    if device.type == "cpu":
        return CpuEngine(columns, ranks, crew)
    if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device: expected cpu or a CUDA device that is present, found {device}.",
            remedy="Pass cpu, or install torch's CUDA build where there is a GPU.",
        )
    # Late: Triton comes with torch's CUDA build alone.
    from oubli.components.lfoci.engines.cuda import CudaEngine

    return CudaEngine(columns, ranks, device)


def _greedy(
    engine: Engine, ranks: Ranks, usable: int, max_columns: int | None
) -> tuple[tuple[int, ...], tuple[float, ...], StopReason, float | None]:
    """Order, scores, why it stopped and the score that was left."""
    order: list[int] = []
    scores: list[float] = []
    given = 0  # shortfall of the columns taken

    def ended(
        stop: StopReason, left: float | None = None
    ) -> tuple[tuple[int, ...], tuple[float, ...], StopReason, float | None]:
        return tuple(order), tuple(scores), stop, left

    if ranks.constant:
        return ended(StopReason.CONSTANT_RESPONSE)
    if usable == 0:
        return ended(StopReason.NO_USABLE_COLUMNS)
    while True:
        column, shortfall = engine.best()
        score = ranks.conditional(shortfall, given) if order else ranks.unconditional(shortfall)
        if score is None or score <= 0.0:
            return ended(StopReason.NO_GAIN, score)
        order.append(column)
        scores.append(score)
        given = shortfall
        if given == 0:
            return ended(StopReason.EXPLAINED)
        if len(order) == usable:
            return ended(StopReason.ALL_TAKEN)
        if len(order) == max_columns:
            return ended(StopReason.LIMIT)
        engine.take(column)
