from __future__ import annotations

import pytest
import torch
from ridge import L2, least_squares, split
from torch import Tensor, nn

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.kinds import CurvatureKind, curvature_builder
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NonFiniteInput
from oubli.components.measures.evaluation import parameter_distance
from oubli.components.model.gradients import RemovedGradient, gradient_sum, objective_gradient, per_sample_gradients
from oubli.components.model.losses import cross_entropy, mse
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.reference.models import logistic_regression
from oubli.components.reference.training import fit_convex
from oubli.components.removal.damping import Fixed, Least, Undamped
from oubli.components.removal.newton import NewtonPlan, newton_removal
from oubli.components.removal.update import RemovalUpdate
from oubli.components.solvers import SolverName


def convex_update(objective: Objective, theta: Tensor, samples: Samples, m: int, steps: int) -> RemovalUpdate:
    retained, removed = split(samples, m)
    given = RemovedGradient.of(objective, theta, removed)
    return newton_removal(objective, theta, retained, given, NewtonPlan(steps, Undamped(), convex=True))


@pytest.mark.parametrize("m", [1, 5, 20])
def test_one_step_is_exact_for_a_quadratic_loss(regression_objective, targets, m):
    theta = least_squares(targets)
    update = convex_update(regression_objective, theta, targets, m, steps=1)
    torch.testing.assert_close(update.theta, least_squares(split(targets, m)[0]), rtol=1e-10, atol=1e-10)
    (report,) = update.steps
    assert report.damping == 0
    assert report.gradient_after < 1e-10 < report.gradient_before


def test_at_a_minimiser_the_retained_gradient_is_made_of_the_removed_samples(linear_objective, classes):
    module = fit_convex(nn.Linear(4, 3).double(), classes, loss=cross_entropy, l2=L2)
    theta = linear_objective.space.theta_of(module)
    retained, removed = split(classes, 7)
    from_removed = -(gradient_sum(linear_objective, theta, removed) + 7 * L2 * theta) / 33
    torch.testing.assert_close(
        objective_gradient(linear_objective, theta, retained), from_removed, rtol=1e-6, atol=1e-8
    )


def test_two_steps_meet_the_bar_on_digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    samples = Samples(torch.tensor(data.data / 16.0)[:1437], torch.tensor(data.target)[:1437])
    retained, removed = split(samples, 10)

    def fit(part: Samples) -> nn.Module:
        return fit_convex(logistic_regression(64, 10).double(), part, loss=cross_entropy, l2=1e-3)

    original = fit(samples)
    objective = Objective(original, cross_entropy, 1e-3)
    retrained = objective.space.theta_of(fit(retained))
    theta = objective.theta()
    given = RemovedGradient.of(objective, theta, removed)
    update = newton_removal(objective, theta, retained, given, NewtonPlan(2, Undamped(), convex=True))
    assert parameter_distance(update.theta, retrained, relative_to=theta) <= 1e-3
    assert update.steps[1].gradient_after < update.steps[0].gradient_after < update.steps[0].gradient_before


def test_a_block_moves_alone_and_solves_its_own_system(regression_objective, targets):
    theta = least_squares(targets)
    retained, removed = split(targets, 5)
    block = torch.tensor([1, 4, 9])
    given = RemovedGradient.of(regression_objective, theta, removed)
    plan = NewtonPlan(1, Fixed(0.0), convex=True)
    update = newton_removal(regression_objective, theta, retained, given, plan, block=block)
    outside = torch.ones(10, dtype=torch.bool)
    outside[block] = False
    assert torch.equal(update.theta[outside], theta[outside])
    # Least squares: the block's step makes the block's own gradient zero.
    gradient = objective_gradient(regression_objective, update.theta, retained)
    torch.testing.assert_close(gradient[block], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert update.steps[0].gradient_after == pytest.approx(float(gradient.norm()))
    assert update.steps[0].step_norm == pytest.approx(float((update.theta - theta).norm()))


def test_the_solvers_agree_on_an_update(network_objective, images, monkeypatch):
    retained, removed = split(images, 2)
    found = {}
    # The fourth way is that of a curvature that comes in its eigenbasis.
    for solver in set(SolverName) - {SolverName.EIGENDECOMPOSITION}:
        monkeypatch.setattr("oubli.components.solvers.choosing.choose_solver", lambda *_, chosen=solver: chosen)
        found[solver] = newton_removal(
            network_objective,
            network_objective.theta(),
            retained,
            RemovedGradient.of(network_objective, network_objective.theta(), removed),
            NewtonPlan(1, Fixed(0.05), convex=False),
        )
        assert found[solver].steps[0].solver is solver
    for update in found.values():
        torch.testing.assert_close(update.theta, found[SolverName.CHOLESKY].theta, rtol=1e-7, atol=1e-8)


def test_curvature_from_some_retained_samples(network_objective, images):
    retained, removed = split(images, 2)
    theta = network_objective.theta()
    given = RemovedGradient.of(network_objective, theta, removed)
    some = retained.select(torch.arange(9))
    plan = NewtonPlan(1, Fixed(0.1), convex=False, curvature_samples=some)
    found = newton_removal(network_objective, theta, retained, given, plan)
    G = GaussNewton(Restriction(network_objective, theta, None), some).dense()
    pull = (given.total + 2 * network_objective.l2 * theta) / len(retained)
    step = torch.linalg.solve(G + (network_objective.l2 + 0.1) * torch.eye(len(G), dtype=G.dtype), pull)
    torch.testing.assert_close(found.theta, theta + step, rtol=1e-8, atol=1e-10)
    # The report is about all retained samples.
    assert found.steps[0].gradient_after == pytest.approx(
        float(objective_gradient(network_objective, found.theta, retained).norm())
    )


def test_another_curvature(network_objective, images):
    retained, removed = split(images, 2)
    theta = network_objective.theta()
    given = RemovedGradient.of(network_objective, theta, removed)
    plan = NewtonPlan(1, Fixed(0.5), convex=False, curvature=curvature_builder(CurvatureKind.FISHER))
    found = newton_removal(network_objective, theta, retained, given, plan)
    rows = torch.cat(list(per_sample_gradients(network_objective, theta, retained)))
    H = rows.T @ rows / len(retained) + (network_objective.l2 + 0.5) * torch.eye(len(theta), dtype=theta.dtype)
    pull = (given.total + 2 * network_objective.l2 * theta) / len(retained)
    torch.testing.assert_close(found.theta, theta + torch.linalg.solve(H, pull), rtol=1e-8, atol=1e-10)


def test_the_models_and_the_removals_gradient(network_objective, images):
    retained, removed = split(images, 3)
    theta = network_objective.theta()
    given = RemovedGradient.of(network_objective, theta, removed)
    found = newton_removal(network_objective, theta, retained, given, NewtonPlan(1, Fixed(1.0), convex=False))
    assert found.model_gradient == pytest.approx(float(objective_gradient(network_objective, theta, images).norm()))
    pull = (given.total + 3 * network_objective.l2 * theta) / len(retained)
    assert found.removal_gradient == pytest.approx(float(pull.norm()))


def test_progress_and_the_callers_theta(regression_objective, targets):
    theta = least_squares(targets)
    before = theta.clone()
    seen: list[float] = []
    retained, removed = split(targets, 5)
    update = newton_removal(
        regression_objective,
        theta,
        retained,
        RemovedGradient.of(regression_objective, theta, removed),
        NewtonPlan(2, Undamped(), convex=True),
        on_progress=seen.append,
    )
    assert torch.equal(theta, before)
    assert seen == [0.5, 1.0]
    assert update.steps[1].gradient_before == update.steps[0].gradient_after


def test_an_indefinite_custom_loss_raises(targets):
    objective = Objective(nn.Linear(4, 2), lambda outputs, labels: -(outputs - labels).square().sum(1), 1e-3)
    retained, removed = split(targets, 5)
    given = RemovedGradient.of(objective, objective.theta(), removed)
    with pytest.raises(IndefiniteCurvature, match="not positive definite"):
        newton_removal(objective, objective.theta(), retained, given, NewtonPlan(1, Least(), convex=False))


def test_arguments_that_cannot_work_are_refused(regression_objective, targets):
    theta = regression_objective.theta()
    retained, removed = split(targets, 5)
    given = RemovedGradient.of(regression_objective, theta, removed)
    empty = targets.select(torch.tensor([], dtype=torch.int64))

    def call(**changed: object) -> None:
        arguments: dict[str, object] = {"retained": retained, "removed": given}
        newton_removal(
            regression_objective, theta, **(arguments | changed), plan=NewtonPlan(1, Undamped(), convex=True)
        )

    with pytest.raises(ConfigurationError, match="removal set is empty"):
        call(removed=RemovedGradient(torch.zeros_like(theta), 0))
    with pytest.raises(ConfigurationError, match="retained set is empty"):
        call(retained=empty)
    with pytest.raises(ConfigurationError, match="steps is 0"):
        NewtonPlan(0, Undamped(), convex=True)


def test_gradients_that_are_not_finite_are_refused(targets):
    objective = Objective(nn.Linear(4, 2), mse, 0.1)
    broken = Samples(targets.inputs.clone(), targets.labels)
    broken.inputs[0, 0] = float("nan")
    with pytest.raises(NonFiniteInput, match="gradient"):
        convex_update(objective, objective.theta(), broken, 5, steps=1)


def test_retained_samples_that_are_not_finite_are_refused(targets):
    objective = Objective(nn.Linear(4, 2), mse, 0.1)
    broken = Samples(targets.inputs.clone(), targets.labels)
    broken.inputs[-1, 0] = float("inf")
    with pytest.raises(NonFiniteInput, match="gradient"):
        convex_update(objective, objective.theta(), broken, 5, steps=1)
