from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gate_evidence import GOOD, accuracy

from oubli.components.gate.evidence import Beside, Utility
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.verdict import judge
from oubli.components.measures.evaluation import Figures

LOSSES = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)


def test_the_distance_bound_needs_strong_convexity():
    assert judge(replace(GOOD, l2=1e-2), GateLimits()).distance_bound == pytest.approx(1e-4)
    assert judge(replace(GOOD, l2=1e-2, convex=False), GateLimits()).distance_bound is None
    assert judge(replace(GOOD, l2=0.0), GateLimits()).distance_bound is None
    assert judge(GOOD, GateLimits()).distance_bound is None
    assert judge(replace(GOOD, l2=1e-2, gradient_after=math.nan), GateLimits()).distance_bound is None


def test_the_bound_is_told_in_units_of_the_weights():
    assert replace(GOOD, l2=1e-2, weight_norm=4.0).relative_bound == pytest.approx(2.5e-5)
    assert replace(GOOD, l2=1e-2, weight_norm=None).relative_bound is None
    assert replace(GOOD, l2=0.0, weight_norm=4.0).relative_bound is None


def test_utility_is_compared_on_the_rows_that_count():
    before = Figures(LOSSES, torch.tensor([1.0, 1, 1, 0], dtype=torch.float64))
    after = Figures(LOSSES + 1, torch.tensor([0.0, 0, 1, 0], dtype=torch.float64))
    every = Utility.of(Beside.PARENT, before, after)
    assert every is not None
    assert (every.figure.n, every.figure.first, every.figure.second, every.left_out) == (4, 0.75, 0.25, 0)
    some = Utility.of(Beside.PARENT, before, after, torch.tensor([False, True, True, True]))
    assert some is not None
    assert (some.figure.n, some.figure.first, some.left_out) == (3, pytest.approx(2 / 3), 1)
    assert Utility.of(Beside.PARENT, before, after, torch.zeros(4, dtype=torch.bool)) is None


def test_without_predictions_the_loss_is_compared():
    found = Utility.of(Beside.TRAINED, Figures(LOSSES, None), Figures(LOSSES + 1, None))
    assert found is not None
    assert (found.by_loss, found.figure.first, found.figure.second, found.figure.error) == (True, 2.5, 3.5, 0)


def test_beside_a_retrained_model_no_other_decides():
    beside_parent, beside_retrained = accuracy(0.9, 0.8), accuracy(0.8, 0.8, beside=Beside.RETRAINED)
    assert replace(GOOD, utility=(beside_parent,)).compared == (beside_parent,)
    # The first removal is judged once, not twice by the same figures; a later one by both.
    first, later = (accuracy(before, 0.8, beside=Beside.TRAINED) for before in (0.9, 0.95))
    assert replace(GOOD, utility=(beside_parent, first)).compared == (beside_parent,)
    assert replace(GOOD, utility=(beside_parent, later)).compared == (beside_parent, later)
    assert replace(GOOD, utility=(beside_parent, beside_retrained)).compared == (beside_retrained,)
