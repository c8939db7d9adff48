from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from oubli.components import newton
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NonFiniteInput, NumericalError
from oubli.components.evaluation import parameter_distance
from oubli.components.gradients import RemovedGradient, gradient_sum, objective_gradient
from oubli.components.losses import cross_entropy, mse
from oubli.components.newton import RELATIVE_DAMPINGS, RemovalUpdate, newton_removal
from oubli.components.objective import Objective
from oubli.components.reference.models import logistic_regression
from oubli.components.reference.training import fit_convex
from oubli.components.samples import Samples
from oubli.components.solvers import SolverName

L2 = 1e-2


def split(samples: Samples, m: int) -> tuple[Samples, Samples]:
    """Retained and removed."""
    return samples.select(torch.arange(m, len(samples))), samples.select(torch.arange(m))


def least_squares(samples: Samples) -> Tensor:
    """The exact minimiser for mse averaged over 2 targets: each target's ridge regression, bias penalised too."""
    X = torch.cat([samples.inputs, torch.ones(len(samples), 1, dtype=torch.float64)], 1)
    # F = (1/(2n)) ||XW - Y||^2 + (l2/2) ||W||^2
    W = torch.linalg.solve(X.T @ X / len(X) + L2 * torch.eye(X.shape[1], dtype=X.dtype), X.T @ samples.labels / len(X))
    return torch.cat([W[:-1].T.reshape(-1), W[-1]])


def convex_update(objective: Objective, theta: Tensor, samples: Samples, m: int, steps: int) -> RemovalUpdate:
    retained, removed = split(samples, m)
    given = RemovedGradient.of(objective, theta, removed)
    return newton_removal(objective, theta, retained, given, block=None, steps=steps, damping=None, convex=True)


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
    update = newton_removal(objective, theta, retained, given, block=None, steps=2, damping=None, convex=True)
    assert parameter_distance(update.theta, retrained, relative_to=theta) <= 1e-3
    assert update.steps[1].gradient_after < update.steps[0].gradient_after < update.steps[0].gradient_before


def test_a_block_moves_alone_and_solves_its_own_system(regression_objective, targets):
    theta = least_squares(targets)
    retained, removed = split(targets, 5)
    block = torch.tensor([1, 4, 9])
    given = RemovedGradient.of(regression_objective, theta, removed)
    update = newton_removal(
        regression_objective, theta, retained, given, block=block, steps=1, damping=0.0, convex=True
    )
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
    for solver in SolverName:
        monkeypatch.setattr("oubli.components.solvers.choose_solver", lambda *_, chosen=solver: chosen)
        found[solver] = newton_removal(
            network_objective,
            network_objective.theta(),
            retained,
            RemovedGradient.of(network_objective, network_objective.theta(), removed),
            block=None,
            steps=1,
            damping=0.05,
            convex=False,
        )
        assert found[solver].steps[0].solver is solver
    for update in found.values():
        torch.testing.assert_close(update.theta, found[SolverName.CHOLESKY].theta, rtol=1e-7, atol=1e-8)


def test_damping_rises_until_the_retained_gradient_does_not(network_objective, images):
    retained, removed = split(images, 2)
    theta = network_objective.theta()
    block = torch.arange(10)
    restriction = newton.Restriction(network_objective, theta, block)
    mean_diagonal = float(newton.GaussNewton(restriction, retained).dense().diagonal().mean())

    given = RemovedGradient.of(network_objective, theta, removed)

    def update(damping: float | None) -> newton.StepReport:
        found = newton_removal(
            network_objective, theta, retained, given, block=block, steps=1, damping=damping, convex=False
        )
        return found.steps[0]

    chosen = update(None)
    dampings = [factor * mean_diagonal for factor in RELATIVE_DAMPINGS]
    one_by_one = [update(damping) for damping in dampings]
    keeps = [one.gradient_after <= one.gradient_before for one in one_by_one]
    place = keeps.index(True) if any(keeps) else len(keeps) - 1
    assert chosen.tries == place + 1
    assert chosen.damping == pytest.approx(dampings[place])
    assert chosen.step_norm == pytest.approx(one_by_one[place].step_norm)


def test_damping_rises_past_indefinite_curvature(targets):
    """Outputs on one side of 0 curve downwards: indefinite at the first dampings, not at the last."""

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return (outputs - labels).square().sum(1) - 1.2 * outputs[:, 0].square()

    objective = Objective(nn.Linear(4, 2), loss, 0.0)
    retained, removed = split(targets, 5)
    arguments = {"block": None, "steps": 1, "convex": False}
    restriction = newton.Restriction(objective, objective.theta(), None)
    given = RemovedGradient.of(objective, objective.theta(), removed)
    lowest = float(torch.linalg.eigvalsh(newton.GaussNewton(restriction, retained).dense())[0])
    assert lowest < 0
    with pytest.raises(IndefiniteCurvature):
        newton_removal(objective, objective.theta(), retained, given, damping=-0.9 * lowest, **arguments)
    (report,) = newton_removal(objective, objective.theta(), retained, given, damping=None, **arguments).steps
    assert report.tries > 1
    assert report.damping > -lowest


def test_damping_rises_past_conjugate_gradients_that_do_not_arrive(network_objective, images, monkeypatch):
    retained, removed = split(images, 2)
    theta = network_objective.theta()
    given = RemovedGradient.of(network_objective, theta, removed)
    monkeypatch.setattr("oubli.components.solvers.choose_solver", lambda *_: SolverName.CONJUGATE_GRADIENTS)

    def update(damping: float | None, iterations: int) -> newton.StepReport:
        monkeypatch.setattr("oubli.components.solvers.CG_ITERATIONS", iterations)
        found = newton_removal(
            network_objective, theta, retained, given, block=None, steps=1, damping=damping, convex=False
        )
        return found.steps[0]

    curvature = newton.GaussNewton(newton.Restriction(network_objective, theta, None), retained)
    needed = [update(factor * curvature.mean_diagonal(), 1000).iterations for factor in RELATIVE_DAMPINGS]
    assert needed[-1] < needed[0]
    # Enough for the last damping, not for the first.
    chosen = update(None, needed[-1])
    assert chosen.tries > 1
    assert chosen.iterations <= needed[-1]
    with pytest.raises(NumericalError, match="iterations"):
        update(None, needed[-1] - 1)


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
        block=None,
        steps=2,
        damping=None,
        convex=True,
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
        newton_removal(objective, objective.theta(), retained, given, block=None, steps=1, damping=None, convex=False)


def test_arguments_that_cannot_work_are_refused(regression_objective, targets):
    theta = regression_objective.theta()
    retained, removed = split(targets, 5)
    given = RemovedGradient.of(regression_objective, theta, removed)
    empty = targets.select(torch.tensor([], dtype=torch.int64))

    def call(**changed: object) -> None:
        arguments: dict[str, object] = {"retained": retained, "removed": given, "steps": 1, "damping": None}
        newton_removal(regression_objective, theta, **(arguments | changed), block=None, convex=True)

    with pytest.raises(ConfigurationError, match="removal set is empty"):
        call(removed=RemovedGradient(torch.zeros_like(theta), 0))
    with pytest.raises(ConfigurationError, match="retained set is empty"):
        call(retained=empty)
    with pytest.raises(ConfigurationError, match="steps is 0"):
        call(steps=0)
    for damping in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="damping is"):
            call(damping=damping)


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
