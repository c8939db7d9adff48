"""Columns as the coefficients need them: finite, of unit spread, and free of ties.

Axes: N samples (rows), p columns (slices), q of them not constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput

Floats = NDArray[np.float64]

NOISE_SCALE = 1e-6
"""Standard deviation of L-CODEC's noise [M22, section 4], in standard deviations of its column.

Below the typical gap of distinct values (1/N) for every N to 1e5, so that it reorders ties and little else;
its square, which is what a distance sees, is still 4 orders above the rounding of a distance near 1.
"""


def as_rows(values: ArrayLike | Tensor, name: str, ndim: int) -> NDArray[np.floating]:
    """`values` as a finite floating-point array of `ndim` axes and at least 2 rows, on the host.

    float32 and float64 are kept as they are, everything else becomes float64. Raises ConfigurationError for
    another shape and NonFiniteInput, with the column, for NaN or infinity.
    """
    if isinstance(values, Tensor):
        host = values.detach().cpu()
        if host.dtype not in (torch.float32, torch.float64):
            host = host.to(torch.float64)
        array = host.numpy()
    else:
        array = np.asarray(values)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float64)
    if array.ndim != ndim or len(array) < 2:
        raise ConfigurationError(
            f"{name}: expected {ndim} axes and at least 2 rows, found shape {array.shape}.",
            remedy="Pass one row for each sample.",
        )
    _refuse_non_finite(array, name)
    return array


def _refuse_non_finite(array: NDArray[np.floating], name: str) -> None:
    columns = array.reshape(len(array), -1)
    # Row by row: a mask of the whole array would cost an eighth of its memory again.
    finite = np.ones(columns.shape[1], dtype=bool)
    for row in columns:
        finite &= np.isfinite(row)
    if finite.all():
        return
    column = int(np.flatnonzero(~finite)[0])
    row_index = int(np.flatnonzero(~np.isfinite(columns[:, column]))[0])
    where = f"column {column} of {name}" if array.ndim > 1 else name
    raise NonFiniteInput(
        f"{where}: expected finite numbers, found {columns[row_index, column]} in row {row_index}.",
        remedy="Remove the row or the column, or find where the number overflowed.",
    )


def rescaled(values: Floats) -> Floats:
    """`values` times the power of two that brings the largest magnitude into [0.5, 1).

    Exact, and it keeps the squares of huge and tiny values within range. The coefficients do not notice.
    """
    largest = float(np.abs(values).max(initial=0.0))
    scaled: Floats = np.ldexp(values, -np.frexp(largest)[1])
    return scaled


def with_noise(column: Floats, noise_scale: float, generator: np.random.Generator) -> Floats:
    """An (N,) column plus N(0, (noise_scale * its standard deviation)^2); constant columns stay constant."""
    noisy: Floats = column + noise_scale * column.std() * generator.standard_normal(len(column))
    return noisy


@dataclass(frozen=True)
class Columns:
    """What a selection searches.

    values: (q, N) float64, C-contiguous: standardised columns with L-CODEC's noise.
    kept: (q,) int64, the place of each in the input; constant: the places of the columns set aside.
    """

    values: Floats
    kept: NDArray[np.int64]
    constant: tuple[int, ...]

    @classmethod
    def of(cls, activations: NDArray[np.floating], *, noise_scale: float, generator: np.random.Generator) -> Columns:
        """Standardise the (N, p) activations, set constant columns aside, add the noise in column order.

        A constant column would score by the accident of its noise. Raises ConfigurationError where the
        noise scale is not a positive finite number.
        """
        if not 0.0 < noise_scale < np.inf:
            raise ConfigurationError(
                f"noise_scale: expected a positive number, found {noise_scale}.",
                remedy=f"The default is {NOISE_SCALE}.",
            )
        varies = activations.max(axis=0) != activations.min(axis=0)
        kept = np.flatnonzero(varies)
        values = np.empty((len(kept), len(activations)))
        for row, column in zip(values, kept, strict=True):
            # Twice: a column of 1e300 + tiny differences keeps them once its mean is gone.
            centred = rescaled(activations[:, column].astype(np.float64))
            centred = rescaled(centred - centred.mean())
            row[:] = with_noise(centred / centred.std(), noise_scale, generator)
        return cls(values, kept, tuple(int(c) for c in np.flatnonzero(~varies)))
