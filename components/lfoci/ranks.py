"""Ranks of the response, and the two coefficients once the neighbours are known.

Axes: N samples (rows).

The sums are of integers, so neither the order of the rows nor the number of threads changes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """R_i = #{j : Y_j <= Y_i} and L_i = #{j : Y_j >= Y_i} of [AC21, section 2].

    Attributes:
        below: (N,) int64, R.
        above: (N,) int64, L.
    """

    below: Integers
    above: Integers

    @classmethod
    def of(cls, response: Floats) -> Ranks:
        """Ranks of a finite (N,) response; equal values share both."""
        ordered = np.sort(response)
        below = np.searchsorted(ordered, response, side="right").astype(np.int64)
        above = len(response) - np.searchsorted(ordered, response, side="left").astype(np.int64)
        return cls(below, above)

    @property
    def constant(self) -> bool:
        """Whether all N responses are equal."""
        return bool((self.above == len(self.above)).all())

    def shortfall(self, neighbours: Integers) -> int:
        """sum_i R_i - min(R_i, R_nu(i)): 0 where no neighbour ranks below its point.

        Both coefficients are affine in it, and fall as it grows.

        Args:
            neighbours: (N,) int64, nu(i).
        """
        return int(np.maximum(self.below - self.below[neighbours], 0).sum())

    def unconditional(self, shortfall: int) -> float | None:
        """T(Y, Z) from the shortfall of the neighbours in Z [AC21, section 2]; None where Y is constant."""
        count = len(self.below)
        spread = int((self.above * (count - self.above)).sum())
        if spread == 0:
            return None
        return (count * (int(self.below.sum()) - shortfall) - int((self.above**2).sum())) / spread

    def conditional(self, shortfall: int, shortfall_given: int) -> float | None:
        """T(Y, Z | X) from the shortfalls in (X, Z) and in X [AC21, section 2].

        None where the shortfall in X is 0: Y is a function of X as far as N points can tell.
        """
        if shortfall_given == 0:
            return None
        return (shortfall_given - shortfall) / shortfall_given
