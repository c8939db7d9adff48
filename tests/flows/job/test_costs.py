"""What the blanket may cost: counted by hand."""

from __future__ import annotations

import pytest

from oubli.flows.job.costs import BlanketExtent, blanket_extent, training_passes
from oubli.registry.removals.unlearn_config import UnlearnConfig


def test_a_training_is_a_forward_and_two_backward_passes() -> None:
    assert training_passes(30, 5000) == 450_000


@pytest.mark.parametrize(
    ("m", "perturbations", "extent"),
    [
        # 5 % of 450,000 passes pay for 5,625 copies, at 4 passes each.
        (1, 1000, BlanketExtent(1, 1000)),
        (5, 1000, BlanketExtent(5, 1000)),
        (15, 1000, BlanketExtent(15, 375)),
        (22, 1000, BlanketExtent(22, 255)),
        # With fewer than 250 copies of each, fewer samples.
        (500, 1000, BlanketExtent(22, 255)),
        (500, 100, BlanketExtent(56, 100)),
    ],
)
def test_fewer_copies_first_then_fewer_samples(m: int, perturbations: int, extent: BlanketExtent) -> None:
    found = blanket_extent(UnlearnConfig(perturbations=perturbations), m, 450_000)
    assert found == extent
    assert found.passes <= 22_500


def test_one_sample_is_looked_at_whatever_it_costs() -> None:
    found = blanket_extent(UnlearnConfig(blanket_budget=1e-9), 10, 450_000)
    assert found == BlanketExtent(1, 250)
    assert found.passes == 1000
