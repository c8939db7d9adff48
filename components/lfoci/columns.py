"""Columns as the coefficients need them: finite, of unit spread, and free of ties.

Axes: N samples (rows), p columns (slices).
"""

from __future__ import annotations

from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.lfoci.threads import Crew

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NOISE_SCALE = 1e-6
"""Standard deviation of L-CODEC's noise [M22, section 4], in standard deviations of its column.

Below the typical gap of distinct values (1/N) for every N to 1e5, so that it reorders ties and little else;
its square, which is what a distance sees, is still 4 orders above the rounding of a distance near 1.
"""

LEAST_NOISE = 2.0**-400
"""Least standard deviation of noise, for a column whose spread is 0 or close to underflow.

A search without noise would take equally near rows in their order. The square of this is still a normal number, and
nothing beside a column that varies.
"""

BLOCK = 32
"""Columns prepared at a time, with noise from one generator: 250 KB at N = 1000, so that a core's cache holds them."""


def as_rows(values: ArrayLike | Tensor, name: str, ndim: int) -> NDArray[np.floating]:
    """Values as a floating-point array on the host.

    Args:
        values: float32 and float64 are kept as they are, everything else becomes float64.
        name: of the values, for the message.
        ndim: how many axes they must have.

    Raises:
        ConfigurationError: there are other axes, or fewer than 2 rows.
    """
    if isinstance(values, Tensor):
        host = values.detach().cpu()
        array = (host if host.dtype in (torch.float32, torch.float64) else host.to(torch.float64)).numpy()
    else:
        array = np.asarray(values)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
    if array.ndim != ndim or len(array) < 2:
        raise ConfigurationError(
            f"{name}: expected {ndim} axes and at least 2 rows, found shape {array.shape}.",
            remedy="Pass one row for each sample.",
        )
    return array


def refuse_non_finite(array: NDArray[np.floating], name: str) -> None:
    """Refuse NaN and infinity.

    Args:
        array: (N,) or (N, p).
        name: of the array, for the message.

    Raises:
        NonFiniteInput: a column holds one; the message names the first.
    """
    columns = array.reshape(len(array), -1)
    finite = np.isfinite(columns)
    if finite.all():
        return
    column = int(np.flatnonzero(~finite.all(axis=0))[0])
    row = int(np.flatnonzero(~finite[:, column])[0])
    where = f"column {column} of {name}" if array.ndim > 1 else name
    raise NonFiniteInput(
        f"{where}: expected finite numbers, found {columns[row, column]} in row {row}.",
        remedy="Remove the row or the column, or find where the number overflowed.",
    )


def power_of_two(largest: Floats) -> Floats:
    """The power of two that brings `largest`, a magnitude, near 1: multiplying by it is exact.

    It keeps the squares of huge and tiny values within range, and the coefficients do not notice.
    """
    exponent = -np.frexp(largest)[1]
    scale: Floats = np.ldexp(1.0, np.clip(exponent, -1000, 1000))
    return scale


def with_noise(matrix: Floats, noise_scale: float, generator: np.random.Generator) -> Floats:
    """Columns less their least values, plus N(0, (noise_scale * their standard deviation)^2).

    Args:
        matrix: (q, N), one column a row.
        noise_scale: in standard deviations of a column; the noise is LEAST_NOISE at least.
        generator: draws the noise.

    Returns:
        (q, N).

    Raises:
        ConfigurationError: the noise scale is not positive and finite.
    """
    check_noise_scale(noise_scale)
    # No distance changes, while noise beside a large offset would be rounded away.
    moved = matrix - matrix.min(axis=1, keepdims=True)
    deviation = np.maximum(noise_scale * moved.std(axis=1, keepdims=True), LEAST_NOISE)
    noisy: Floats = moved + deviation * generator.standard_normal(matrix.shape)
    return noisy


def check_noise_scale(noise_scale: float) -> None:
    """Raise ConfigurationError unless 0 < noise_scale < infinity."""
    if not 0.0 < noise_scale < np.inf:
        raise ConfigurationError(
            f"noise_scale: expected a positive number, found {noise_scale}.",
            remedy=f"The default is {NOISE_SCALE}.",
        )


@dataclass(frozen=True)
class Columns:
    """What a selection searches.

    Attributes:
        values: (p, N) float64, C-contiguous: each column standardised, with L-CODEC's noise. Those of constant columns
            mean nothing.
        usable: the columns that vary, ascending.
        constant: those set aside.
    """

    values: Floats
    usable: Integers
    constant: tuple[int, ...]

    @classmethod
    def of(
        cls,
        table: NDArray[np.floating],
        rows: Integers,
        *,
        noise_scale: float,
        generator: np.random.Generator,
        crew: Crew,
    ) -> Columns:
        """The columns of an (N, p) table, with its rows in the order `rows`.

        The noise of each BLOCK columns, in the table's own order, is drawn from a generator of their own,
        `generator.spawn(ceil(p / BLOCK))`, so that threads draw side by side and change nothing. A constant column
        is set aside, as it would score by the accident of its noise. Raises NonFiniteInput for NaN or infinity, and
        ConfigurationError where the noise scale is not a positive number.
        """
        check_noise_scale(noise_scale)
        count, width = table.shape
        values = np.empty((width, count))
        varies = np.zeros(width, dtype=bool)
        generators = generator.spawn(-(-width // BLOCK))
        bench = SimpleQueue[_Scratch]()
        for _ in range(crew.threads):
            bench.put(_Scratch.of(count, table.dtype))

        def prepare(number: int) -> None:
            block = slice(number * BLOCK, min((number + 1) * BLOCK, width))
            generators[number].standard_normal(out=values[block])
            scratch = bench.get()
            try:
                varies[block] = scratch.prepare(table, block, rows, noise_scale, values[block])
            finally:
                bench.put(scratch)

        crew.each(prepare, range(len(generators)))
        return cls(values, np.flatnonzero(varies), tuple(int(c) for c in np.flatnonzero(~varies)))


@dataclass(frozen=True)
class _Scratch:
    """What one thread writes to while it prepares a block of columns.

    Kept from block to block: fresh memory costs more than the arithmetic done in it.
    """

    packed: NDArray[np.floating]
    columns: Floats
    other: Floats

    @classmethod
    def of(cls, count: int, dtype: np.dtype[np.floating]) -> _Scratch:
        block = (BLOCK, count)
        return cls(np.empty(block[::-1], dtype), np.empty(block), np.empty(block))

    def prepare(
        self, table: NDArray[np.floating], block: slice, rows: Integers, noise_scale: float, values: Floats
    ) -> NDArray[np.bool_]:
        """Turn (b, N) standard normals in `values` into b columns of the table; return whether each varies.

        A column that does not is left with its noise alone.
        """
        width = len(values)
        packed, columns, other = self.packed[:, :width], self.columns[:width], self.other[:width]
        # Packed before it is transposed: a table 2^k columns wide would use one set of the cache only.
        np.copyto(packed, table[:, block])
        np.copyto(columns, packed.T)
        low, high = columns.min(axis=1, keepdims=True), columns.max(axis=1, keepdims=True)
        largest = np.maximum(high, -low)
        if not np.isfinite(largest).all():
            refuse_non_finite(table, "activations")
        varies: NDArray[np.bool_] = (low != high)[:, 0]
        # Scaled twice: small differences of large values keep their precision once the mean is gone.
        columns *= power_of_two(largest)
        columns -= columns.mean(axis=1, keepdims=True)
        columns *= power_of_two(np.abs(columns, out=other).max(axis=1, keepdims=True))
        columns[~varies] = 0.0
        spread = np.sqrt(np.square(columns, out=other).mean(axis=1))
        columns /= np.where(varies, spread, 1.0)[:, None]
        columns += np.multiply(values, noise_scale, out=other)
        np.take(columns, rows, axis=1, out=values, mode="clip")
        return varies
