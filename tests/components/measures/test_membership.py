from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.measures.membership import (
    MembershipScore,
    membership_auc,
    membership_inference,
    membership_scores,
)
from oubli.components.model.losses import bce_with_logits, cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=12)  # few values: many ties


@settings(deadline=None)
@given(members=SCORES, others=SCORES)
def test_the_auc_is_the_share_of_pairs(members, others):
    pairs = [(one > other) + 0.5 * (one == other) for one in members for other in others]
    found = membership_auc(torch.tensor(members).double(), torch.tensor(others).double())
    assert found.auc == pytest.approx(sum(pairs) / len(pairs))
    assert (found.members, found.others) == (len(members), len(others))
    swapped = membership_auc(torch.tensor(others).double(), torch.tensor(members).double())
    assert found.auc + swapped.auc == pytest.approx(1)


@pytest.mark.parametrize(("members", "others"), [(1, 40), (10, 50), (60, 25)])
def test_the_errors_are_the_spread_of_many_draws(members, others):
    """Exponential scores, for which Hanley and McNeil's formula is exact: of equal and of different means."""
    random = np.random.default_rng(members)
    draws = 3000

    def spread(mean: float) -> tuple[float, float, float]:
        first = random.exponential(mean, (draws, members))
        second = random.exponential(1.0, (draws, others))
        aucs = (first[:, :, None] > second[:, None]).mean((1, 2))
        return float(aucs.std()), mean / (1 + mean), float(aucs.mean())

    found, _, _ = spread(1.0)
    one = membership_auc(torch.arange(members).double(), torch.arange(others).double())
    assert one.chance_error == pytest.approx(found, rel=0.07)

    found, expected, mean = spread(2.5)
    assert mean == pytest.approx(expected, abs=0.03)
    # The estimated AUC itself is drawn, so the formula is asked at scores whose AUC is the expected one.
    ranks = torch.arange(others).double()
    middle = torch.full((members,), expected * others - 0.5).double()
    estimate = membership_auc(middle.round(), ranks)
    assert estimate.auc == pytest.approx(expected, abs=0.5 / others + 1e-9)
    assert estimate.standard_error == pytest.approx(found, rel=0.15)


def test_scores_are_by_definition(network_objective, images):
    theta = network_objective.theta()
    outputs = network_objective.module(images.inputs)
    p = outputs.softmax(1)
    rows = torch.arange(20)
    own = p[rows, images.labels]
    rest = p.clone()
    rest[rows, images.labels] = 0
    expected = {
        MembershipScore.LOSS: -functional.cross_entropy(outputs, images.labels, reduction="none"),
        MembershipScore.CONFIDENCE: p.amax(1),
        MembershipScore.ENTROPY: (p * p.log()).sum(1),
        MembershipScore.MARGIN: own.log() - rest.amax(1).log(),
    }
    for score, values in expected.items():
        found = membership_scores(network_objective, theta, images, score=score)
        assert found.dtype is torch.float64
        torch.testing.assert_close(found, values)
        half = membership_inference(
            network_objective, theta, images.select(rows[:8]), images.select(rows[8:]), score=score
        )
        assert half == membership_auc(values[:8], values[8:])


def test_binary_scores(classes):
    objective = Objective(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), bce_with_logits, 0.0)
    samples = Samples(classes.inputs, (classes.labels > 0).double())
    logits = objective.module(samples.inputs)
    signed = torch.where(samples.labels > 0, logits, -logits)
    found = {score: membership_scores(objective, objective.theta(), samples, score=score) for score in MembershipScore}
    torch.testing.assert_close(found[MembershipScore.MARGIN], signed)
    torch.testing.assert_close(found[MembershipScore.CONFIDENCE], logits.abs().sigmoid())
    torch.testing.assert_close(found[MembershipScore.LOSS], functional.logsigmoid(signed))


def test_several_positions_are_averaged():
    """Per-pixel classes: (b, C, T) outputs and (b, T) labels."""
    objective = Objective(nn.Conv1d(2, 3, 1), cross_entropy, 0.0)
    inputs = torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(0, 3, (5, 7), generator=torch.Generator().manual_seed(1))
    for score in MembershipScore:
        found = membership_scores(objective, objective.theta(), Samples(inputs, labels), score=score)
        pixels = Samples(inputs.movedim(1, 2).reshape(35, 2, 1), labels.reshape(35, 1))
        each = membership_scores(objective, objective.theta(), pixels, score=score)
        torch.testing.assert_close(found, each.view(5, 7).mean(1))


def test_a_model_that_memorised_gives_its_members_away(images):
    """Random labels, learnt by heart: the only way to be right is to have seen them."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 3))
    members, others = images.select(torch.arange(10)), images.select(torch.arange(10, 20))
    objective = Objective(module, cross_entropy, 0.0)
    before = membership_inference(objective, objective.theta(), members, others)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        functional.cross_entropy(module(members.inputs.float()), members.labels).backward()
        optimiser.step()
    after = Objective(module, cross_entropy, 0.0)
    found = membership_inference(after, after.theta(), members, others)
    assert found.auc > 0.9 > before.auc


def test_squared_errors_have_a_loss_but_no_confidence(regression_objective, targets):
    theta = regression_objective.theta()
    assert membership_inference(regression_objective, theta, targets, targets).auc == 0.5
    for score in (MembershipScore.CONFIDENCE, MembershipScore.ENTROPY, MembershipScore.MARGIN):
        assert membership_inference(regression_objective, theta, targets, targets, score=score) is None


def test_certain_predictions_are_finite(classes):
    objective = Objective(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), bce_with_logits, 0.0)
    sure = torch.tensor([0.0, 0, 0, 0, 5000], dtype=torch.float64)
    samples = Samples(classes.inputs, torch.ones(40))
    assert torch.equal(
        membership_scores(objective, sure, samples, score=MembershipScore.ENTROPY), torch.zeros(40).double()
    )


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ConfigurationError, match="0 members and 3 others"):
        membership_auc(torch.zeros(0), torch.zeros(3))
    with pytest.raises(NonFiniteInput, match="others are NaN"):
        membership_auc(torch.zeros(2), torch.tensor([math.nan]))
    assert membership_auc(torch.tensor([-math.inf]), torch.tensor([0.0])).auc == 0
