from __future__ import annotations

import pytest
import torch

from oubli.components.gate.ranks import OnBoth, margin_rank, nearest


def test_a_rank_by_hand():
    judged = OnBoth(torch.tensor([0.0, 10.0]), torch.tensor([-1.0, 0.5, 2.0, 9.0, 30.0]))
    updated = OnBoth(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0, 2.0, 3.5, -5.0]))
    # The two nearest of the first: 0.5 and -1, margins 1 and 0 beside 1: one below, one equal, 3/4.
    # Of the second: 9 and 2, margins 3.5 and 2 beside 3: 1/2.
    assert margin_rank(judged, updated, 2) == pytest.approx((0.75 + 0.5) / 2)
    # With all five: 2.5 of 5 (0 and -5 below, 1 equal), and 4 of 5.
    assert margin_rank(judged, updated, 30) == pytest.approx((2.5 / 5 + 4 / 5) / 2)


def test_the_nearest_are_those_of_a_search_through_all():
    random = torch.Generator().manual_seed(0)
    places, among = torch.randn(20, generator=random), torch.randn(90, generator=random)
    for count in (1, 7, 30, 60, 90, 200):
        found = nearest(places, among, count)
        for place, chosen in zip(places, found, strict=True):
            slow = (among - place).abs().argsort()[:count]
            assert set(chosen.tolist()) == set(slow.tolist()), count


def test_ranks_are_those_of_a_search_through_all():
    random = torch.Generator().manual_seed(0)
    judged, updated = (OnBoth(torch.randn(20, generator=random), torch.randn(90, generator=random)) for _ in range(2))
    for neighbours in (1, 7, 30, 60, 90, 200):
        shares = []
        for place, margin in zip(judged.removed, updated.removed, strict=True):
            found = (judged.held_out - place).abs().argsort()[:neighbours]
            shares.append(float((updated.held_out[found] < margin).double().mean()))
        assert margin_rank(judged, updated, neighbours) == pytest.approx(sum(shares) / 20), neighbours
