"""What parts of a removal cost, counted and not timed: the same request counts the same on every machine.

Axes: n training samples, m removed samples.

The unit is one sample's forward pass; a backward pass counts as two, as is usual for networks.
"""

from __future__ import annotations

from dataclasses import dataclass

from oubli.registry.removals.unlearn_config import UnlearnConfig

FORWARD_AND_BACKWARD = 3

COPY = 4
"""What a perturbed copy costs: its recording, and its part of L-FOCI. Measured with 200 to 1,000 copies of a sample:
1.7 to 2.5 on three convolutional networks, 3.3 to 4.8 on a small text encoder and a small perceptron."""

LEAST_PERTURBATIONS = 250
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
        return COPY * self.samples * self.perturbations


def blanket_extent(config: UnlearnConfig, m: int, retraining: int) -> BlanketExtent:
    """As much as the budget allows: fewer copies first, then fewer samples, and never less than one sample.

    Args:
        config: Its budget, and the most copies.
        m: Removed samples.
        retraining: Passes of a retraining.
    """
    copies = int(config.blanket_budget * retraining / COPY)
    least = min(LEAST_PERTURBATIONS, config.perturbations)
    samples = min(m, max(1, copies // least))
    return BlanketExtent(samples, min(config.perturbations, max(least, copies // samples)))
