"""How often the gate's verdict on a network is wrong: the one place that says it.

Measured on models whose distance to retrained models was known. The rules of today have not been measured so yet: what
is known is of an earlier form of them, and the record says that.
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
        rules: Whose verdicts they are, in words.
    """

    good_refused: float
    bad_accepted: float
    grossly_bad_accepted: float
    models: int
    measured_on: str
    rules: str = "these rules"

    @property
    def sentence(self) -> str:
        """In words, for a record."""
        return (
            f"Of {self.models} models ({self.measured_on}), {self.rules} refused {self.good_refused:.0%} of the good, "
            f"and accepted {self.bad_accepted:.0%} of the bad and {self.grossly_bad_accepted:.0%} of the grossly bad."
        )


NETWORKS = ErrorRates(
    good_refused=0.10,
    bad_accepted=0.10,
    grossly_bad_accepted=0.04,
    models=448,
    measured_on="small image and text networks, limits fitted on other sets",
    rules="an earlier form of these rules",
)
"""Verdicts from two auditors, without a retrained model."""
