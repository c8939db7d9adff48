from __future__ import annotations

import pytest
import torch
from torch import nn

from oubli.components.blocks.layers import CHANNELS_SECOND, CUTTERS, FEATURES_LAST, PROJECTIONS, Call, cuts


def test_subclasses_are_cut_as_what_they_are():
    class Own(nn.Linear):
        pass

    assert cuts(Own(3, 2)) == cuts(nn.Linear(3, 2)) != ()
    assert cuts(nn.SyncBatchNorm(2)) == cuts(nn.BatchNorm2d(2))


@pytest.mark.parametrize(
    "layer", [nn.LSTM(2, 2), nn.GRUCell(2, 2), nn.PReLU(), nn.EmbeddingBag(3, 2), nn.GroupNorm(1, 2, affine=False)]
)
def test_kinds_that_are_not_known_have_no_units(layer):
    assert cuts(layer) == ()


def test_no_kind_is_listed_twice():
    types = [one for kinds in CUTTERS for one in kinds]
    assert not [(a, b) for a in types for b in types if a is not b and issubclass(a, b)]


def test_the_batch_axis_must_be_able_to_hold_samples():
    linear, conv = nn.Linear(2, 2), nn.Conv1d(2, 2, 1)

    def of(reading, layer, *shape):
        return reading.batch_axes(layer, Call((), {}, torch.zeros(shape)), 2)

    assert of(FEATURES_LAST, linear, 2, 5, 2) == {0}
    assert of(FEATURES_LAST, linear, 5, 2, 2) == {1}
    assert of(FEATURES_LAST, linear, 2) == set()
    assert of(FEATURES_LAST, linear, 6, 2) == set()
    assert of(CHANNELS_SECOND, conv, 2, 2, 2) == {0}
    assert of(CHANNELS_SECOND, conv, 4, 2, 2) == set()
    assert FEATURES_LAST.batch_axes(linear, Call((), {}, (torch.zeros(2, 2),)), 2) == set()


def test_keys_that_all_samples_share_have_no_batch_axis():
    attention = nn.MultiheadAttention(4, 1)
    per_sample, shared = torch.zeros(5, 2, 4), torch.zeros(7, 1, 4)
    given = Call((per_sample,), {"key": per_sample, "value": per_sample}, None)
    assert PROJECTIONS.batch_axes(attention, given, 2) == {1}
    assert PROJECTIONS.batch_axes(attention, Call((per_sample, shared, shared), {}, None), 2) == set()
    assert PROJECTIONS.batch_axes(attention, Call((per_sample,), {}, None), 2) == set()
