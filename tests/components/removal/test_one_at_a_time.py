from __future__ import annotations

import pytest
import torch
from ridge import L2, least_squares, split
from torch import nn

from oubli.components.measures.evaluation import parameter_distance
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.reference.training import fit_convex
from oubli.components.removal.damping import Undamped
from oubli.components.removal.newton import NewtonPlan, newton_removal
from oubli.components.removal.one_at_a_time import one_at_a_time


@pytest.mark.parametrize("group", [1, 2, 5])
def test_one_at_a_time_is_the_batch_for_a_quadratic_loss(regression_objective, targets, group):
    theta = least_squares(targets)
    retained, removed = split(targets, 5)
    seen: list[float] = []
    update = one_at_a_time(
        regression_objective,
        theta,
        retained,
        removed,
        NewtonPlan(1, Undamped(), convex=True),
        group=group,
        on_progress=seen.append,
    )
    torch.testing.assert_close(update.theta, least_squares(retained), rtol=1e-9, atol=1e-9)
    assert len(update.steps) == len(seen) == -(-5 // group)
    assert seen[-1] == 1.0


def test_one_at_a_time_lands_near_the_batch_on_a_convex_objective(classes):
    module = fit_convex(nn.Linear(4, 3).double(), classes, loss=cross_entropy, l2=L2)
    objective = Objective(module, cross_entropy, L2)
    theta = objective.theta()
    retained, removed = split(classes, 4)
    plan = NewtonPlan(2, Undamped(), convex=True)
    singly = one_at_a_time(objective, theta, retained, removed, plan).theta
    batch = newton_removal(objective, theta, retained, RemovedGradient.of(objective, theta, removed), plan).theta
    fresh = fit_convex(nn.Linear(4, 3).double(), retained, loss=cross_entropy, l2=L2)
    retrained = objective.space.theta_of(fresh)
    assert parameter_distance(singly, retrained, relative_to=theta) < 1e-2
    assert parameter_distance(batch, retrained, relative_to=theta) < 1e-2
