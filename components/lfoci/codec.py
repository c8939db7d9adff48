"""CODEC, the conditional dependence coefficient T of [AC21], by definition, and L-CODEC of [M22].

Axes: N samples (rows), q columns of a variable.

T is about 0 for (conditional) independence, about 1 where the response is a function of the columns (given
the others), and may be slightly negative.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.lfoci.columns import NOISE_SCALE, as_rows, power_of_two, refuse_non_finite, with_noise
from oubli.components.lfoci.ranks import Ranks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def codec(
    response: ArrayLike | Tensor,
    columns: ArrayLike | Tensor,
    given: ArrayLike | Tensor | None = None,
    *,
    generator: np.random.Generator,
) -> float | None:
    """T(Y, Z), or T(Y, Z | X) where `given` is passed, in float64 and O(N^2 q) time [AC21, section 2].

    Distances are Euclidean and of the values as they are: standardise first where the columns' units differ.

    Args:
        response: (N,), Y.
        columns: (N,) or (N, q), Z.
        given: (N,) or (N, q), X.
        generator: draws uniformly among equally near neighbours.

    Returns:
        The coefficient; None where nothing is left to explain: Y is constant, or already a function of X.

    Raises:
        NonFiniteInput: a value is NaN or infinite.
        ConfigurationError: the shapes do not match.
    """
    ranks, free, fixed = _variables(response, columns, given)
    if fixed is None:
        return ranks.unconditional(ranks.shortfall(_tied_neighbours(free, generator)))
    both = np.concatenate([fixed, free], axis=1)
    return ranks.conditional(
        ranks.shortfall(_tied_neighbours(both, generator)),
        ranks.shortfall(_tied_neighbours(fixed, generator)),
    )


def l_codec(
    response: ArrayLike | Tensor,
    columns: ArrayLike | Tensor,
    given: ArrayLike | Tensor | None = None,
    *,
    noise_scale: float = NOISE_SCALE,
    generator: np.random.Generator,
) -> float | None:
    """`codec` on columns with a little Gaussian noise, which leaves no ties to search for [M22, section 4].

    O(N log N) for few columns. The response keeps its values: its ties are counted by R and L without any search, and
    noise there would bring T(Y, Y + noise) from 1 down to 1/2 for a binary Y. A column that does not vary gets noise
    too, far below that of any that does: alone, it draws neighbours at random, as `codec` does.

    Args:
        response: (N,), Y.
        columns: (N,) or (N, q), Z.
        given: (N,) or (N, q), X.
        noise_scale: standard deviation of the noise, in standard deviations of each column.
        generator: draws X's noise first, then Z's, column by column.

    Returns:
        As `codec`.

    Raises:
        NonFiniteInput: a value is NaN or infinite.
        ConfigurationError: the shapes do not match, or `noise_scale` is not positive and finite.
    """
    ranks, free, fixed = _variables(response, columns, given)
    if fixed is None:
        return ranks.unconditional(ranks.shortfall(_neighbours(_noisy(free, noise_scale, generator))))
    noisy_fixed = _noisy(fixed, noise_scale, generator)
    both = np.concatenate([noisy_fixed, _noisy(free, noise_scale, generator)], axis=1)
    return ranks.conditional(
        ranks.shortfall(_neighbours(both)),
        ranks.shortfall(_neighbours(noisy_fixed)),
    )


def _variables(
    response: ArrayLike | Tensor, columns: ArrayLike | Tensor, given: ArrayLike | Tensor | None
) -> tuple[Ranks, Floats, Floats | None]:
    """Ranks of Y; Z and X as (N, q) matrices on one scale, as a distance in (X, Z) adds their squares."""
    values = as_rows(response, "response", 1).astype(np.float64)
    refuse_non_finite(values, "response")
    free = _matrix(columns, "columns", len(values))
    fixed = None if given is None else _matrix(given, "given", len(values))
    largest = max(float(np.abs(matrix).max()) for matrix in (free, fixed) if matrix is not None)
    scale = power_of_two(np.array(largest))
    return Ranks.of(values), free * scale, None if fixed is None else fixed * scale


def _matrix(values: ArrayLike | Tensor, name: str, count: int) -> Floats:
    array = as_rows(values, name, 1 if np.ndim(values) == 1 else 2)
    refuse_non_finite(array, name)
    matrix = array.astype(np.float64).reshape(len(array), -1)
    if matrix.shape[0] != count or matrix.shape[1] == 0:
        raise ConfigurationError(
            f"{name}: expected {count} rows, as the response has, and a column or more, found shape {matrix.shape}.",
            remedy="Pass the same samples, in the same order.",
        )
    return matrix


def _noisy(matrix: Floats, noise_scale: float, generator: np.random.Generator) -> Floats:
    return with_noise(matrix.T, noise_scale, generator).T


def _tied_neighbours(points: Floats, generator: np.random.Generator) -> Integers:
    """(N,) int64: the nearest other of each of the (N, q) points, drawn among those equally near."""
    found = np.empty(len(points), dtype=np.int64)
    for row, point in enumerate(points):
        distances = ((points - point) ** 2).sum(axis=1)
        distances[row] = np.inf
        found[row] = generator.choice(np.flatnonzero(distances == distances.min()))
    return found


def _neighbours(points: Floats) -> Integers:
    """(N,) int64: for each of the (N, q) points its nearest other, where no two are equally near."""
    _, nearest = cKDTree(points).query(points, k=2)
    # The point itself comes first, except beside an exact duplicate.
    itself = nearest[:, 0] == np.arange(len(points))
    found: Integers = np.where(itself, nearest[:, 1], nearest[:, 0]).astype(np.int64)
    return found
