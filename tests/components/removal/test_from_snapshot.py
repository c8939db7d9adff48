from __future__ import annotations

import pytest
import torch
from ridge import L2, split
from torch import nn

from oubli.components.curvature.snapshots.taking import take_snapshot
from oubli.components.errors import ConfigurationError
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.reference.training import fit_convex
from oubli.components.removal.damping import SNAPSHOT_DAMPING, Least, Undamped
from oubli.components.removal.from_snapshot import removal_from_snapshot
from oubli.components.removal.newton import NewtonPlan, newton_removal


@pytest.mark.parametrize("block", [None, torch.tensor([0, 3, 7, 11])])
def test_a_step_from_a_snapshot_is_the_step_with_a_pass(classes, block):
    module = fit_convex(nn.Linear(4, 3).double(), classes, loss=cross_entropy, l2=L2)
    objective = Objective(module, cross_entropy, L2)
    theta = objective.theta()
    retained, removed = split(classes, 4)
    snapshot = take_snapshot(objective, theta, classes)
    kept = removal_from_snapshot(objective, theta, snapshot, removed, damping=Undamped(), block=block)
    given = RemovedGradient.of(objective, theta, removed)
    plan = NewtonPlan(1, Undamped(), convex=True)
    passed = newton_removal(objective, theta, retained, given, plan, block=block)
    torch.testing.assert_close(kept.theta, passed.theta, rtol=1e-9, atol=1e-11)
    assert kept.steps[0].gradient_before == pytest.approx(passed.steps[0].gradient_before, rel=1e-6)
    assert kept.steps[0].gradient_after is None
    assert kept.removal_gradient == pytest.approx(passed.removal_gradient)
    assert kept.model_gradient == pytest.approx(passed.model_gradient, abs=1e-9)


def test_the_damping_of_a_network_from_a_snapshot(network_objective, images):
    theta = network_objective.theta()
    retained, removed = split(images, 2)
    snapshot = take_snapshot(network_objective, theta, images)
    given = RemovedGradient.of(network_objective, theta, removed)
    judged = removal_from_snapshot(network_objective, theta, snapshot, removed, damping=Least(probe=retained))
    passed = newton_removal(network_objective, theta, retained, given, NewtonPlan(1, Least(), convex=False))
    assert judged.steps[0].damping == pytest.approx(passed.steps[0].damping)
    torch.testing.assert_close(judged.theta, passed.theta, rtol=1e-7, atol=1e-9)
    unjudged = removal_from_snapshot(network_objective, theta, snapshot, removed, damping=Least())
    diagonal = snapshot.without(Restriction(network_objective, theta, None), removed).dense().diagonal()
    assert unjudged.steps[0].damping == pytest.approx(SNAPSHOT_DAMPING * float(diagonal.mean()))
    assert unjudged.steps[0].tries == 1


def test_a_snapshot_does_not_hold_more_than_it_was_taken_of(classes):
    objective = Objective(nn.Linear(4, 3), cross_entropy, L2)
    snapshot = take_snapshot(objective, objective.theta(), classes)
    with pytest.raises(ConfigurationError, match="retained set is empty"):
        removal_from_snapshot(objective, objective.theta(), snapshot, classes, damping=Undamped())
