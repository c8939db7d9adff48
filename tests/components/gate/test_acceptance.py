from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.gate.acceptance import (
    AcceptanceLimits,
    AcceptanceRule,
    AcceptanceStatistics,
    OnBoth,
    accept,
    acceptance_statistics,
    margin_rank,
)
from oubli.components.model.losses import Loss

GOOD = AcceptanceStatistics(
    disagreement=1.0, original_disagreement=3.0, left=0.2, rank=0.5, rank_over_classes=0.5, accuracy_drop=0.0
)


def logits(*shares: float) -> Tensor:
    """(b, 2): logits of two classes whose first has these probabilities."""
    return torch.tensor([[math.log(p), math.log(1 - p)] for p in shares], dtype=torch.float64)


def kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def both(removed: tuple[float, ...], held_out: tuple[float, ...]) -> OnBoth:
    return OnBoth(logits(*removed), logits(*held_out))


def statistics(**changed: OnBoth) -> AcceptanceStatistics:
    given = {
        "judge": both((0.5,), (0.5, 0.8)),
        "witness": both((0.6,), (0.4, 0.8)),
        "updated": both((0.7,), (0.5, 0.6)),
        "original": both((0.9,), (0.7, 0.8)),
        "labels": OnBoth(torch.tensor([0]), torch.tensor([0, 1])),
    }
    return acceptance_statistics(Loss.CROSS_ENTROPY, **(given | changed))


def test_the_statistics_by_hand():
    found = statistics()
    # On V, one of the two samples agrees in each of the three pairs, so that the mean is half of the other's.
    witnessed = kl(0.5, 0.6) / (kl(0.5, 0.4) / 2)
    assert found.disagreement == pytest.approx(kl(0.5, 0.7) / (kl(0.8, 0.6) / 2) / witnessed)
    assert found.original_disagreement == pytest.approx(kl(0.5, 0.9) / (kl(0.5, 0.7) / 2) / witnessed)
    assert found.left == pytest.approx(kl(0.5, 0.7) / kl(0.5, 0.9))
    # Under f, u has the margin ln(.7/.3); the held-out ones 0, and -ln(.6/.4) for its second class: both are below.
    assert found.rank == 1.0
    # Of the four pairs (sample, class), margins 0, 0, ln(.6/.4) and its negative: all are below.
    assert found.rank_over_classes == 1.0
    # The original is right on the first and not on the second; f's first class is the larger in both (a tie).
    assert found.accuracy_drop == 0.0


def test_the_witness_sets_the_scale():
    assert statistics(updated=both((0.6,), (0.4, 0.8))).disagreement == pytest.approx(1.0)


def test_a_rank_by_hand():
    judged = OnBoth(torch.tensor([0.0, 10.0]), torch.tensor([-1.0, 0.5, 2.0, 9.0, 30.0]))
    updated = OnBoth(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0, 2.0, 3.5, -5.0]))
    # The two nearest of the first: 0.5 and -1, margins 1 and 0 beside 1: one below, one equal, 3/4.
    # Of the second: 9 and 2, margins 3.5 and 2 beside 3: 1/2.
    assert margin_rank(judged, updated, 2) == pytest.approx((0.75 + 0.5) / 2)
    # With all five: 2.5 of 5 (0 and -5 below, 1 equal), and 4 of 5.
    assert margin_rank(judged, updated, 30) == pytest.approx((2.5 / 5 + 4 / 5) / 2)


def test_ranks_are_those_of_a_search_through_all():
    random = torch.Generator().manual_seed(0)
    judged, updated = (OnBoth(torch.randn(20, generator=random), torch.randn(90, generator=random)) for _ in range(2))
    for neighbours in (1, 7, 30, 60, 90, 200):
        shares = []
        for place, margin in zip(judged.removed, updated.removed, strict=True):
            nearest = (judged.held_out - place).abs().argsort()[:neighbours]
            shares.append(float((updated.held_out[nearest] < margin).double().mean()))
        assert margin_rank(judged, updated, neighbours) == pytest.approx(sum(shares) / 20), neighbours


def test_a_rank_over_classes_takes_every_class_for_the_label():
    shares = {"judge": ((0.9, 0.2), (0.7, 0.4, 0.1)), "updated": ((0.8, 0.3), (0.55, 0.6, 0.35))}
    margins = {
        name: OnBoth(*(torch.tensor([math.log(p / (1 - p)) for p in one]) for one in pair))
        for name, pair in shares.items()
    }
    every = {name: OnBoth(one.removed, torch.cat([one.held_out, -one.held_out])) for name, one in margins.items()}
    labels = OnBoth(torch.tensor([0, 0]), torch.tensor([0, 1, 1]))
    found = acceptance_statistics(
        Loss.CROSS_ENTROPY,
        judge=both(*shares["judge"]),
        updated=both(*shares["updated"]),
        witness=both((0.5, 0.5), (0.6, 0.5, 0.5)),
        original=both((0.5, 0.5), (0.6, 0.5, 0.5)),
        labels=labels,
        neighbours=3,
    )
    assert found.rank_over_classes == pytest.approx(margin_rank(every["judge"], every["updated"], 3))


def test_accuracy_on_held_out_samples_is_compared():
    labels = OnBoth(torch.tensor([0]), torch.tensor([0, 0]))
    found = statistics(updated=both((0.7,), (0.6, 0.4)), labels=labels)
    assert found.accuracy_drop == pytest.approx(0.5)


def test_labels_of_their_own_are_judged_as_two_classes():
    # One logit z of a label of its own is two classes with logits (0, z).
    removed, held_out = torch.tensor([[0.3], [-1.0]]), torch.tensor([[0.5], [2.0], [-0.7]])

    def outputs(shift: float, factor: float) -> OnBoth:
        return OnBoth(factor * removed + shift, factor * held_out + shift * torch.tensor([[1.0], [-1.0], [2.0]]))

    labels = OnBoth(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [0.0], [0.0]]))
    given = {
        "judge": outputs(0.1, 1.0),
        "witness": outputs(0.4, 0.8),
        "updated": outputs(-0.3, 1.2),
        "original": outputs(-0.5, 3.0),
    }
    found = acceptance_statistics(Loss.BCE_WITH_LOGITS, labels=labels, **given)
    pairs = {
        name: OnBoth(*(torch.cat([torch.zeros_like(z), z], 1) for z in (one.removed, one.held_out)))
        for name, one in given.items()
    }
    classes = OnBoth(labels.removed[:, 0].long(), labels.held_out[:, 0].long())
    other = acceptance_statistics(Loss.CROSS_ENTROPY, labels=classes, **pairs)
    for name, value in vars(other).items():
        assert getattr(found, name) == pytest.approx(value), name


def test_a_good_removal_is_accepted():
    decision = accept(GOOD)
    assert decision.accepted
    assert not decision.nothing_to_forget


@pytest.mark.parametrize(
    ("changed", "value", "rule"),
    [
        ("disagreement", 1.5, AcceptanceRule.DISAGREES),
        ("left", 0.9, AcceptanceRule.NOT_FORGOTTEN),
        ("rank", 0.81, AcceptanceRule.RANK),
        ("rank", 0.19, AcceptanceRule.RANK),
        ("accuracy_drop", 0.016, AcceptanceRule.ACCURACY_FELL),
        ("disagreement", math.nan, AcceptanceRule.DISAGREES),
        ("rank", math.nan, AcceptanceRule.RANK),
    ],
)
def test_each_rule_refuses_by_itself(changed, value, rule):
    assert accept(replace(GOOD, **{changed: value})).broken == (rule,)


@pytest.mark.parametrize(
    ("changed", "value"),
    [("disagreement", 1.4), ("left", 0.85), ("rank", 0.2), ("rank", 0.8), ("accuracy_drop", 0.015)],
)
def test_a_limit_itself_is_allowed(changed, value):
    assert accept(replace(GOOD, **{changed: value})).accepted


def test_where_the_original_passes_there_was_nothing_to_forget():
    decision = accept(replace(GOOD, original_disagreement=1.2, left=1.0))
    assert decision.accepted
    assert decision.nothing_to_forget
    # The other rules hold as ever.
    assert accept(replace(GOOD, original_disagreement=1.2, rank=0.9)).broken == (AcceptanceRule.RANK,)


def test_limits_are_a_value():
    assert accept(replace(GOOD, rank=0.9), AcceptanceLimits(greatest_rank=0.95)).accepted
    with pytest.raises(ConfigurationError, match="finite"):
        AcceptanceLimits(left=math.nan)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ConfigurationError, match="'mse' has no predictive distribution"):
        acceptance_statistics(
            Loss.MSE, **dict.fromkeys(("updated", "original", "judge", "witness", "labels"), both((0.5,), (0.5,)))
        )
    with pytest.raises(ConfigurationError, match="2 removed and 2 held-out"):
        statistics(witness=both((0.5, 0.5), (0.5, 0.5)))
    with pytest.raises(NonFiniteInput):
        statistics(updated=OnBoth(torch.full((1, 2), torch.nan), logits(0.5, 0.5)))
