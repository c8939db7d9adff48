from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from oubli.components.curvature.kinds import CurvatureKind, curvature_builder
from oubli.components.curvature.snapshots.taking import take_snapshot
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NonFiniteInput, NumericalError
from oubli.components.measures.evaluation import parameter_distance
from oubli.components.model.gradients import RemovedGradient, gradient_sum, objective_gradient, per_sample_gradients
from oubli.components.model.losses import cross_entropy, mse
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.reference.models import logistic_regression
from oubli.components.reference.training import fit_convex
from oubli.components.removal import newton
from oubli.components.removal.newton import (
    RELATIVE_DAMPINGS,
    SNAPSHOT_DAMPING,
    RemovalUpdate,
    newton_removal,
    one_at_a_time,
    removal_from_snapshot,
)
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
    # The fourth way is that of a curvature that comes in its eigenbasis.
    for solver in set(SolverName) - {SolverName.EIGENDECOMPOSITION}:
        monkeypatch.setattr("oubli.components.solvers.choosing.choose_solver", lambda *_, chosen=solver: chosen)
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


def test_the_least_damping_that_keeps_the_retained_gradient_is_taken(network_objective, images):
    retained, removed = split(images, 2)
    theta = network_objective.theta()
    block = torch.arange(10)
    restriction = newton.Restriction(network_objective, theta, block)
    mean_diagonal = float(newton.GaussNewton(restriction, retained).dense().diagonal().mean())

    given = RemovedGradient.of(network_objective, theta, removed)

    def update(damping: float | None) -> newton.StepReport:
        found = newton_removal(
            network_objective, theta, retained, given, block=block, steps=1, damping=damping, convex=False, rise=0.02
        )
        return found.steps[0]

    chosen = update(None)
    dampings = [factor * mean_diagonal for factor in RELATIVE_DAMPINGS]
    one_by_one = [update(damping) for damping in dampings]
    keeps = [one.gradient_after <= 1.02 * one.gradient_before for one in one_by_one]
    place = keeps.index(True) if any(keeps) else len(keeps) - 1
    assert chosen.damping == pytest.approx(dampings[place])
    assert chosen.step_norm == pytest.approx(one_by_one[place].step_norm)
    assert chosen.tries <= 4


def test_the_largest_damping_is_taken_where_every_one_raises_the_gradient(targets):
    """At a minimiser of the retained samples every step raises their gradient."""
    retained, removed = split(targets, 5)
    theta = least_squares(retained)
    objective = Objective(nn.Linear(4, 2), mse, L2)
    given = RemovedGradient.of(objective, theta, removed)
    (report,) = newton_removal(objective, theta, retained, given, block=None, steps=1, damping=None, convex=False).steps
    restriction = newton.Restriction(objective, theta, None)
    largest = RELATIVE_DAMPINGS[-1] * float(newton.GaussNewton(restriction, retained).dense().diagonal().mean())
    assert report.damping == pytest.approx(largest)
    assert report.gradient_after > report.gradient_before


def test_curvature_from_some_retained_samples(network_objective, images):
    retained, removed = split(images, 2)
    theta = network_objective.theta()
    given = RemovedGradient.of(network_objective, theta, removed)
    some = retained.select(torch.arange(9))
    arguments = {"block": None, "steps": 1, "damping": 0.1, "convex": False}
    found = newton_removal(network_objective, theta, retained, given, curvature_samples=some, **arguments)
    G = newton.GaussNewton(newton.Restriction(network_objective, theta, None), some).dense()
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
    arguments = {"block": None, "steps": 1, "damping": 0.5, "convex": False}
    build = curvature_builder(CurvatureKind.FISHER)
    found = newton_removal(network_objective, theta, retained, given, curvature=build, **arguments)
    rows = torch.cat(list(per_sample_gradients(network_objective, theta, retained)))
    H = rows.T @ rows / len(retained) + (network_objective.l2 + 0.5) * torch.eye(len(theta), dtype=theta.dtype)
    pull = (given.total + 2 * network_objective.l2 * theta) / len(retained)
    torch.testing.assert_close(found.theta, theta + torch.linalg.solve(H, pull), rtol=1e-8, atol=1e-10)


def test_the_models_and_the_removals_gradient(network_objective, images):
    retained, removed = split(images, 3)
    theta = network_objective.theta()
    given = RemovedGradient.of(network_objective, theta, removed)
    found = newton_removal(network_objective, theta, retained, given, block=None, steps=1, damping=1.0, convex=False)
    assert found.model_gradient == pytest.approx(float(objective_gradient(network_objective, theta, images).norm()))
    pull = (given.total + 3 * network_objective.l2 * theta) / len(retained)
    assert found.removal_gradient == pytest.approx(float(pull.norm()))


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
        block=None,
        steps=1,
        damping=None,
        convex=True,
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
    arguments = {"block": None, "steps": 2, "damping": None, "convex": True}
    singly = one_at_a_time(objective, theta, retained, removed, **arguments).theta
    batch = newton_removal(objective, theta, retained, RemovedGradient.of(objective, theta, removed), **arguments).theta
    fresh = fit_convex(nn.Linear(4, 3).double(), retained, loss=cross_entropy, l2=L2)
    retrained = objective.space.theta_of(fresh)
    assert parameter_distance(singly, retrained, relative_to=theta) < 1e-2
    assert parameter_distance(batch, retrained, relative_to=theta) < 1e-2


@pytest.mark.parametrize("block", [None, torch.tensor([0, 3, 7, 11])])
def test_a_step_from_a_snapshot_is_the_step_with_a_pass(classes, block):
    module = fit_convex(nn.Linear(4, 3).double(), classes, loss=cross_entropy, l2=L2)
    objective = Objective(module, cross_entropy, L2)
    theta = objective.theta()
    retained, removed = split(classes, 4)
    snapshot = take_snapshot(objective, theta, classes)
    kept = removal_from_snapshot(objective, theta, snapshot, removed, block=block, damping=None, convex=True)
    given = RemovedGradient.of(objective, theta, removed)
    passed = newton_removal(objective, theta, retained, given, block=block, steps=1, damping=None, convex=True)
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
    arguments = {"block": None, "damping": None, "convex": False}
    judged = removal_from_snapshot(network_objective, theta, snapshot, removed, probe=retained, **arguments)
    passed = newton_removal(network_objective, theta, retained, given, steps=1, **arguments)
    assert judged.steps[0].damping == pytest.approx(passed.steps[0].damping)
    torch.testing.assert_close(judged.theta, passed.theta, rtol=1e-7, atol=1e-9)
    unjudged = removal_from_snapshot(network_objective, theta, snapshot, removed, **arguments)
    diagonal = snapshot.without(newton.Restriction(network_objective, theta, None), removed).dense().diagonal()
    assert unjudged.steps[0].damping == pytest.approx(SNAPSHOT_DAMPING * float(diagonal.mean()))
    assert unjudged.steps[0].tries == 1


def test_a_few_samples_judge_a_damping_by_how_their_gradient_changes(network_objective, images):
    theta = network_objective.theta()
    retained, removed = split(images, 2)
    given = RemovedGradient.of(network_objective, theta, removed)
    few = retained.select(torch.arange(9))
    arguments = {"block": None, "steps": 1, "convex": False, "rise": 0.02}
    chosen = newton_removal(network_objective, theta, retained, given, probe=few, damping=None, **arguments).steps[0]
    before = objective_gradient(network_objective, theta, retained)
    own = objective_gradient(network_objective, theta, few)
    assert float((own - before).norm()) > 0.1 * float(before.norm())
    restriction = newton.Restriction(network_objective, theta, None)
    scale = float(newton.GaussNewton(restriction, retained).dense().diagonal().mean())
    keeps = []
    for factor in RELATIVE_DAMPINGS:
        moved = newton_removal(network_objective, theta, retained, given, damping=factor * scale, **arguments).theta
        change = objective_gradient(network_objective, moved, few) - own
        keeps.append(float((before + change).norm()) <= 1.02 * float(before.norm()))
    place = keeps.index(True) if any(keeps) else len(keeps) - 1
    assert chosen.damping == pytest.approx(RELATIVE_DAMPINGS[place] * scale)


def test_a_snapshot_does_not_hold_more_than_it_was_taken_of(classes):
    objective = Objective(nn.Linear(4, 3), cross_entropy, L2)
    snapshot = take_snapshot(objective, objective.theta(), classes)
    with pytest.raises(ConfigurationError, match="retained set is empty"):
        removal_from_snapshot(objective, objective.theta(), snapshot, classes, block=None, damping=None, convex=True)


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


def test_a_damping_that_conjugate_gradients_do_not_arrive_with_is_passed_over(network_objective, images, monkeypatch):
    retained, removed = split(images, 2)
    theta = network_objective.theta()
    given = RemovedGradient.of(network_objective, theta, removed)
    solver = "oubli.components.solvers.choosing.choose_solver"
    monkeypatch.setattr(solver, lambda *_, **__: SolverName.CONJUGATE_GRADIENTS)

    def update(damping: float | None, iterations: int) -> newton.StepReport:
        monkeypatch.setattr("oubli.components.solvers.conjugate_gradients.CG_ITERATIONS", iterations)
        found = newton_removal(
            network_objective, theta, retained, given, block=None, steps=1, damping=damping, convex=False
        )
        return found.steps[0]

    curvature = newton.GaussNewton(newton.Restriction(network_objective, theta, None), retained)
    dampings = [factor * curvature.mean_diagonal() for factor in RELATIVE_DAMPINGS]
    needed = [update(damping, 1000).iterations for damping in dampings]
    assert needed[-1] < needed[0]
    # Enough for the largest damping, not for the least.
    assert update(None, needed[-1]).iterations <= needed[-1]
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
