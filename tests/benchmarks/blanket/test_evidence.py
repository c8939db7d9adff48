"""Agreement and movement, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.blanket.evidence import difference, jaccard, moved_more, movement, other_samples, same_sample
from oubli.components.blocks.slices import find_slices


def test_agreement_is_what_is_shared_of_what_is_in_either() -> None:
    assert jaccard((1, 2, 3), (2, 3, 4)) == 0.5
    assert jaccard((1,), (2,)) == 0.0
    assert jaccard((), ()) == 1.0
    assert same_sample([(1,), (1, 2)], [(1,), (2,)]) == 0.75
    # Three pairs: 1, 0 and 0.
    assert other_samples([(1,), (1,), (2,)]) == pytest.approx(1 / 3)


def test_kinds_that_differ_are_told_apart() -> None:
    found, p = difference([(1,)] * 8, [(2,)] * 8, seed=0)
    assert found == 1.0
    # Two of 256 exchanges leave the difference as large.
    assert p < 0.03


def test_kinds_that_do_not_differ_are_not() -> None:
    alike = [(1,), (2,), (3,), (1, 2)]
    found, p = difference(alike, alike, seed=0)
    # Within and between are the same pairs, those of one label left out.
    assert found == pytest.approx(0.0)
    assert p == 1.0


def test_movement_is_in_units_of_the_layers_own() -> None:
    slices = find_slices(nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 2)))
    # Weight and bias of a unit move alike: 1 and 3 in the first layer; 0 and 5 in the second.
    moved = torch.tensor([1.0, -3.0, 1.0, 3.0, 0.0, 0.0, 5.0, 5.0, 0.0, 5.0])
    movements = movement(slices, moved)
    np.testing.assert_allclose(movements, [0.5, 1.5, 0.0, 2.0])
    own, p = moved_more(slices, movements, (1, 3), seed=0)
    assert own == 1.75
    # One of four choices of a slice in each layer moves as much.
    assert p == pytest.approx(0.25, abs=0.05)
    assert np.isnan(moved_more(slices, movements, (), seed=0)).all()
