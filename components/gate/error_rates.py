"""How often the gate's verdict on a network is wrong: the one place that says it.

Measured by `benchmarks.unlearning` on models whose distance to retrained models was known, under the limits of today,
which were fitted on removals from another network.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    count: int
    of: int

    @property
    def words(self) -> str:
        return f"{self.count} of {self.of} ({self.count / self.of:.0%})"


@dataclass(frozen=True)
class ErrorRates:
    """Of verdicts on networks.

    Attributes:
        good_refused: Good models that are refused.
        bad_accepted: Bad ones that are accepted.
        grossly_bad_accepted: Grossly bad ones that are accepted.
        removals: Sets of removed samples that the models are of.
        measured_on: On what, in words.
    """

    good_refused: Share
    bad_accepted: Share
    grossly_bad_accepted: Share
    removals: int
    measured_on: str

    @property
    def models(self) -> int:
        """How many were judged."""
        return self.good_refused.of + self.bad_accepted.of + self.grossly_bad_accepted.of

    @property
    def sentence(self) -> str:
        """In words, for a record."""
        return (
            f"Of {self.models} models of {self.removals} removals ({self.measured_on}; limits fitted on another "
            f"network's), these rules refused {self.good_refused.words} of the good, and accepted "
            f"{self.bad_accepted.words} of the bad and {self.grossly_bad_accepted.words} of the grossly bad."
        )


NETWORKS = ErrorRates(
    good_refused=Share(5, 97),
    bad_accepted=Share(39, 151),
    grossly_bad_accepted=Share(2, 128),
    removals=8,
    measured_on="from small image and text networks",
)
"""Verdicts from two auditors, without a retrained model. What good and bad mean: benchmarks/unlearning/README.md."""
