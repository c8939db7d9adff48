"""How often the gate's verdict on a network is wrong: the one place that says it.

Measured on models whose distance to retrained models was known, with limits that were fitted on other sets of removed
samples than those they were tried on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorRates:
    """Of verdicts on networks.

    Attributes:
        good_refused: Share of the good models that are refused.
        bad_accepted: Share of the bad ones that are accepted.
        grossly_bad_accepted: Share of the grossly bad ones that are accepted.
        models: How many were judged.
        measured_on: On what, in words.
    """

    good_refused: float
    bad_accepted: float
    grossly_bad_accepted: float
    models: int
    measured_on: str

    @property
    def sentence(self) -> str:
        """In words, for a record."""
        return (
            f"Of {self.models} models ({self.measured_on}), these rules refused {self.good_refused:.0%} of the good, "
            f"and accepted {self.bad_accepted:.0%} of the bad and {self.grossly_bad_accepted:.0%} of the grossly bad."
        )


NETWORKS = ErrorRates(
    good_refused=0.10,
    bad_accepted=0.10,
    grossly_bad_accepted=0.04,
    models=448,
    measured_on="small image and text networks, limits fitted on other sets",
)
"""Verdicts from two auditors, without a retrained model."""
