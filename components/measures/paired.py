"""Two models on the same samples: how far the one falls behind the other, and how sure that is.

Axes: n samples.

Of the same samples both models get most right or wrong together, so the difference of their means is known far better
than either mean. With d the n differences, its standard error is std(d) / sqrt(n): for right or wrong predictions, b of
them right under the first alone and c under the second alone, that is McNemar's

    sqrt((b + c - (b - c)^2 / n)) / n                        (McNemar, Psychometrika 12, 1947).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from oubli.components.errors import ConfigurationError

ONE_SIDED_95 = 1.6449
"""Standard errors below the mean that leave 5 % of a normal distribution further down."""


@dataclass(frozen=True)
class Paired:
    """A figure of two models over the same samples.

    Attributes:
        n: Samples.
        first: The first model's mean.
        second: The second model's mean.
        error: Standard error of the difference.
    """

    n: int
    first: float
    second: float
    error: float

    @property
    def fall(self) -> float:
        """By how much the second lies below the first."""
        return self.first - self.second

    @property
    def sure_fall(self) -> float:
        """The least that the fall is, at a one-sided confidence of 95 %."""
        return self.fall - ONE_SIDED_95 * self.error

    @property
    def sure_rise(self) -> float:
        """The least by which the second lies above the first, at a one-sided confidence of 95 %."""
        return -self.fall - ONE_SIDED_95 * self.error


def paired(first: Tensor, second: Tensor) -> Paired:
    """Compare two models' figures, sample by sample.

    Args:
        first: (n,) figures of the first model, such as 1 where it is right and 0 where it is wrong.
        second: (n,) of the second, on the same samples in the same order.

    Raises:
        ConfigurationError: There are no samples, or another number of them.
    """
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise ConfigurationError(
            f"Figures of shape {tuple(first.shape)} and {tuple(second.shape)} cannot be compared sample by sample.",
            remedy="Measure both models on the same samples, at least one.",
        )
    one, other = first.double(), second.double()
    error = float((one - other).std(correction=0)) / math.sqrt(len(one))
    return Paired(len(one), float(one.mean()), float(other.mean()), error)
