from __future__ import annotations

import pytest
from torch import nn

from oubli.components.blocks.slices import Slice, find_slices
from oubli.components.blocks.union import SampleSelection, UnionRule, union_of
from oubli.components.errors import ConfigurationError
from oubli.components.lfoci import StopReason

A, B, C, D, E = (Slice("0", 0), Slice("0", 1), Slice("0", 2), Slice("1", 0), Slice("1", 1))


def fixed_union(**rule: object) -> tuple[tuple[Slice, ...], tuple[int, ...]]:
    """The block of four samples' selections: A three times, B and D twice, E once, C never."""
    module = nn.Sequential(nn.Linear(1, 3), nn.Linear(3, 2))  # slices of 2 and of 4 parameters

    def of(order: tuple[Slice, ...], scores: tuple[float, ...]) -> SampleSelection:
        return SampleSelection(order, scores, StopReason.NO_GAIN)

    selections = (of((A, B), (0.5, 0.1)), of((A, D), (0.5, 0.4)), of((B, A), (0.2, 0.1)), of((D, E), (0.9, 0.1)))
    return union_of(find_slices(module), selections, UnionRule(**rule), batch=False)


@pytest.mark.parametrize(
    ("rule", "slices"),
    [
        ({}, (A, B, D, E)),
        ({"min_samples": 2}, (A, B, D)),
        ({"min_samples": 3}, (A,)),
        ({"min_share": 0.5}, (A, B, D)),
        ({"min_share": 0.51}, (A,)),
        ({"min_share": 1.0}, ()),
        ({"max_slices": 2}, (A, D)),  # D's scores add up to 1.3, B's to 0.3
        ({"max_slices_per_layer": 1}, (A, D)),
        ({"max_slices_per_layer": 1, "max_slices": 1}, (A,)),
        ({"max_parameters": 6}, (A, D)),
        ({"max_parameters": 5}, (A, B)),
        ({"max_parameters": 1}, (A,)),
        ({"max_slices": 1, "whole_layers": True}, (A, B, C)),
        ({"whole_layers": True}, (A, B, C, D, E)),
    ],
)
def test_what_becomes_of_the_selections(rule, slices):
    found, counts = fixed_union(**rule)
    assert found == slices
    assert counts == tuple({A: 3, B: 2, C: 0, D: 2, E: 1}[one] for one in slices)


@pytest.mark.parametrize(
    "bad",
    [
        {"min_share": 1.5},
        {"min_share": -0.1},
        {"min_samples": 0},
        {"max_slices": 0},
        {"max_slices_per_layer": 0},
        {"max_parameters": 0},
    ],
)
def test_rule_must_be_usable(bad):
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        UnionRule(**bad)
