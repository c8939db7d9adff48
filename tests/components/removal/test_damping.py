from __future__ import annotations

import pytest
import torch
from ridge import L2, least_squares, split
from torch import Tensor, nn

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NumericalError
from oubli.components.model.gradients import RemovedGradient, objective_gradient
from oubli.components.model.losses import cross_entropy, mse
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.removal.damping import RELATIVE_DAMPINGS, Damping, Fixed, Least, Undamped
from oubli.components.removal.newton import NewtonPlan, newton_removal
from oubli.components.removal.update import StepReport
from oubli.components.solvers import SolverName


def test_the_least_damping_that_keeps_the_retained_gradient_is_taken(network_objective, images):
    retained, removed = split(images, 2)
    theta = network_objective.theta()
    block = torch.arange(10)
    restriction = Restriction(network_objective, theta, block)
    mean_diagonal = float(GaussNewton(restriction, retained).dense().diagonal().mean())

    given = RemovedGradient.of(network_objective, theta, removed)

    def update(damping: Damping) -> StepReport:
        plan = NewtonPlan(1, damping, convex=False)
        return newton_removal(network_objective, theta, retained, given, plan, block=block).steps[0]

    chosen = update(Least(rise=0.02))
    dampings = [factor * mean_diagonal for factor in RELATIVE_DAMPINGS]
    one_by_one = [update(Fixed(damping)) for damping in dampings]
    keeps = [one.gradient_after <= 1.02 * one.gradient_before for one in one_by_one]
    place = keeps.index(True) if any(keeps) else len(keeps) - 1
    assert chosen.damping == pytest.approx(dampings[place])
    assert chosen.step_norm == pytest.approx(one_by_one[place].step_norm)
    assert chosen.tries <= 4


def test_where_every_damping_raises_the_gradient_none_is_taken(targets):
    """At a minimiser of the retained samples every step raises their gradient."""
    retained, removed = split(targets, 5)
    theta = least_squares(retained)
    objective = Objective(nn.Linear(4, 2), mse, L2)
    given = RemovedGradient.of(objective, theta, removed)
    with pytest.raises(NumericalError, match=r"No damping up to .* keeps .* norm goes from .* is allowed"):
        newton_removal(objective, theta, retained, given, NewtonPlan(1, Least(), convex=False))


def memorised(l2: float) -> tuple[Objective, Samples, RemovedGradient]:
    """A classifier that is sure of all it retains, with next to no curvature, and wrong on what is removed."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    inputs[:, 0] = torch.where(inputs[:, 0] > 0, 1.0, -1.0)
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[-12.0, 0.0, 0.0], [12.0, 0.0, 0.0]]))
        module.bias.zero_()
    objective = Objective(module, cross_entropy, l2)
    retained = Samples(inputs, (inputs[:, 0] > 0).long())
    removed = Samples(inputs[:1], 1 - retained.labels[:1])
    return objective, retained, RemovedGradient.of(objective, objective.theta(), removed)


def test_where_there_is_next_to_no_curvature_dampings_reach_beyond_l2():
    l2 = 1e-2
    objective, retained, given = memorised(l2)
    theta = objective.theta()
    mean = GaussNewton(Restriction(objective, theta, None), retained).mean_diagonal()
    assert RELATIVE_DAMPINGS[-1] * mean < 1e-3 * l2

    def after(damping: Damping) -> StepReport:
        return newton_removal(objective, theta, retained, given, NewtonPlan(1, damping, convex=False)).steps[0]

    chosen = after(Least())
    ladder = [factor * l2 for factor in RELATIVE_DAMPINGS]
    keeps = [one.gradient_after <= 1.25 * one.gradient_before for one in map(after, map(Fixed, ladder))]
    assert chosen.damping == pytest.approx(ladder[keeps.index(True)])
    # The largest multiple of the mean curvature ruins it.
    ruined = after(Fixed(RELATIVE_DAMPINGS[-1] * mean))
    assert ruined.gradient_after > 1.25 * ruined.gradient_before


def test_a_ladder_that_does_not_reach_far_enough_is_reported_and_nothing_applied():
    objective, retained, given = memorised(1e-9)
    with pytest.raises(NumericalError, match="No damping up to 1e-07 keeps the retained gradient near") as caught:
        newton_removal(objective, objective.theta(), retained, given, NewtonPlan(1, Least(), convex=False))
    assert "matching" in caught.value.remedy


def test_a_few_samples_judge_a_damping_by_how_their_gradient_changes(network_objective, images):
    theta = network_objective.theta()
    retained, removed = split(images, 2)
    given = RemovedGradient.of(network_objective, theta, removed)
    few = retained.select(torch.arange(9))
    plan = NewtonPlan(1, Least(rise=0.02, probe=few), convex=False)
    (chosen,) = newton_removal(network_objective, theta, retained, given, plan).steps
    before = objective_gradient(network_objective, theta, retained)
    own = objective_gradient(network_objective, theta, few)
    assert float((own - before).norm()) > 0.1 * float(before.norm())
    restriction = Restriction(network_objective, theta, None)
    scale = float(GaussNewton(restriction, retained).dense().diagonal().mean())
    keeps = []
    for factor in RELATIVE_DAMPINGS:
        plan = NewtonPlan(1, Fixed(factor * scale), convex=False)
        moved = newton_removal(network_objective, theta, retained, given, plan).theta
        change = objective_gradient(network_objective, moved, few) - own
        keeps.append(float((before + change).norm()) <= 1.02 * float(before.norm()))
    place = keeps.index(True) if any(keeps) else len(keeps) - 1
    assert chosen.damping == pytest.approx(RELATIVE_DAMPINGS[place] * scale)


def test_damping_rises_past_indefinite_curvature(targets):
    """Outputs on one side of 0 curve downwards: indefinite at the first dampings, not at the last."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs - labels).square().sum(1) - 1.2 * outputs[:, 0].square()

    objective = Objective(nn.Linear(4, 2), loss, 0.0)
    retained, removed = split(targets, 5)
    restriction = Restriction(objective, objective.theta(), None)
    given = RemovedGradient.of(objective, objective.theta(), removed)
    lowest = float(torch.linalg.eigvalsh(GaussNewton(restriction, retained).dense())[0])
    assert lowest < 0
    with pytest.raises(IndefiniteCurvature):
        newton_removal(objective, objective.theta(), retained, given, NewtonPlan(1, Fixed(-0.9 * lowest), convex=False))
    plan = NewtonPlan(1, Least(), convex=False)
    (report,) = newton_removal(objective, objective.theta(), retained, given, plan).steps
    assert report.tries > 1
    assert report.damping > -lowest


@pytest.mark.slow
def test_a_damping_that_conjugate_gradients_do_not_arrive_with_is_passed_over(network_objective, images, monkeypatch):
    retained, removed = split(images, 2)
    theta = network_objective.theta()
    given = RemovedGradient.of(network_objective, theta, removed)
    solver = "oubli.components.solvers.choosing.choose_solver"
    monkeypatch.setattr(solver, lambda *_, **__: SolverName.CONJUGATE_GRADIENTS)

    def update(damping: Damping, iterations: int) -> StepReport:
        monkeypatch.setattr("oubli.components.solvers.conjugate_gradients.CG_ITERATIONS", iterations)
        plan = NewtonPlan(1, damping, convex=False)
        return newton_removal(network_objective, theta, retained, given, plan).steps[0]

    curvature = GaussNewton(Restriction(network_objective, theta, None), retained)
    dampings = [factor * curvature.mean_diagonal() for factor in RELATIVE_DAMPINGS]
    needed = [update(Fixed(damping), 1000).iterations for damping in dampings]
    assert needed[-1] < needed[0]
    # Enough for the largest damping, not for the least.
    assert update(Least(), needed[-1]).iterations <= needed[-1]
    with pytest.raises(NumericalError, match="iterations"):
        update(Least(), needed[-1] - 1)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_damping_that_is_none_is_refused(value):
    with pytest.raises(ConfigurationError, match="damping is"):
        Fixed(value)


def test_the_words_of_a_damping():
    assert Undamped().words == "none (convex)"
    assert Fixed(0.25).words == "0.25, as configured"
    assert Least(rise=0.1).words == "relative to the mean curvature"
