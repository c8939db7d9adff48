"""What parts of a removal cost, counted and not timed: the same request counts the same on every machine.

Axes: n training samples, m removed samples.

The unit is one sample's forward pass; a backward pass counts as two, as is usual for networks.
"""

from __future__ import annotations

from dataclasses import dataclass

from oubli.registry.removals.unlearn_config import UnlearnConfig

FORWARD_AND_BACKWARD = 3

LEAST_PERTURBATIONS = 200
"""Copies of a sample below which fewer samples are looked at instead: L-FOCI ranks the copies, and few say little."""


def training_passes(epochs: int, n: int) -> int:
    """Of a training, or a surrogate's."""
    return FORWARD_AND_BACKWARD * epochs * n


@dataclass(frozen=True)
class BlanketExtent:
    """How many of the removed samples L-FOCI looks at, and how many copies of each."""

    samples: int
    perturbations: int

    @property
    def passes(self) -> int:
        return self.samples * self.perturbations


def blanket_extent(config: UnlearnConfig, m: int, retraining: int) -> BlanketExtent:
    """As much as the budget allows: fewer copies first, then fewer samples, and never less than one sample.

    Args:
        config: Its budget, and the most copies.
        m: Removed samples.
        retraining: Passes of a retraining.
    """
    allowed = int(config.blanket_budget * retraining)
    least = min(LEAST_PERTURBATIONS, config.perturbations)
    samples = min(m, max(1, allowed // least))
    return BlanketExtent(samples, min(config.perturbations, max(least, allowed // samples)))
