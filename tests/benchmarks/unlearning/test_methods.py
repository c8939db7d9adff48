from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks.unlearning.methods import matching, newton, sabotage, saliency
from benchmarks.unlearning.methods.catalogue import METHODS, Group
from benchmarks.unlearning.methods.task import Task
from benchmarks.unlearning.problems import DIGITS, RemovalKind, bench, train
from benchmarks.unlearning.removals import removal_set
from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.reference.models import logistic_regression
from oubli.components.reference.training import fit_convex


@pytest.fixture(scope="module")
def digits():
    return bench(DIGITS, Path("nowhere"))


@pytest.fixture(scope="module")
def task(digits):
    removal = removal_set(digits, RemovalKind.MISLABELLED, lambda *_: pytest.fail("no models needed"))
    original = train(digits.build(0), removal.train, DIGITS.recipe, seed=0)
    return Task.of(digits, removal, original, 0)


def losses(task: Task, state) -> float:
    objective = state.within(task.objective)
    return float(objective.losses(state.theta, objective.prepare(task.removed)).mean())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_gives_finite_weights_and_leaves_the_original_alone(task, method):
    before = task.theta.clone()
    state = method.run(task)
    assert torch.equal(task.theta, before)
    assert torch.isfinite(state.theta).all()
    # No weight here matters a hundred times more to the removed samples than to all.
    assert torch.equal(state.theta, before) == (method.name in ("nothing", "ssd"))


@pytest.mark.parametrize("name", ["matching", "newton", "newton-8-steps", "scrub", "neggrad-plus", "salun"])
def test_what_is_made_to_forget_raises_the_loss_on_the_removed(task, name):
    method = next(method for method in METHODS if method.name == name)
    assert losses(task, method.run(task)) > 1.05 * losses(task, METHODS[0].run(task))


@pytest.mark.parametrize("name", ["wrong-targets", "wrong-sign"])
def test_what_is_sabotaged_lowers_it(task, name):
    method = next(method for method in METHODS if method.name == name)
    assert method.group is Group.SABOTEUR
    assert losses(task, method.run(task)) < losses(task, METHODS[0].run(task))


def test_an_overshoot_goes_on_from_the_matched_model(task):
    matched, far = matching.match_all(task), sabotage.overshoot(task)
    assert torch.allclose(far.theta - task.theta, sabotage.TIMES * (matched.theta - task.theta), atol=1e-5)


def test_matching_the_output_layer_moves_nothing_else(task):
    moved = (matching.match_output_layer(task).theta != task.theta).nonzero().flatten()
    assert set(moved.tolist()) <= set(matching.output_layer(task).tolist())
    assert len(moved) > 0


@pytest.mark.slow
def test_a_chain_ends_at_all_that_was_removed(task):
    state = matching.chain(task)
    assert losses(task, state) > 1.05 * losses(task, METHODS[0].run(task))


def test_conjugate_gradients_solve_what_a_direct_solve_does():
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    matrix, right = factor @ factor.T, torch.randn(6, generator=generator, dtype=torch.float64)
    found = newton.conjugate_gradients(lambda vector: matrix @ vector, right, 0.5, iterations=6)
    shifted = matrix + 0.5 * torch.eye(6, dtype=torch.float64)
    assert torch.allclose(found, torch.linalg.solve(shifted, right), atol=1e-8)


@pytest.fixture
def convex(task, digits):
    """The same removal from a model that is at its minimum."""
    module = fit_convex(logistic_regression(64, 10), task.removal.train, loss=cross_entropy, l2=0.01, tolerance=1e-8)
    objective = Objective(module, cross_entropy, 0.01)
    return dataclasses.replace(task, objective=objective, theta=objective.theta())


@pytest.mark.slow
def test_one_step_is_the_newton_step_of_all_samples(convex):
    found = newton.small_steps(convex, newton.Steps(1, 10_000, 500, 0.0)).theta
    objective, theta, m, r = convex.objective, convex.theta, len(convex.removed), len(convex.retained)
    curvature = GaussNewton(Restriction(objective, theta, None), convex.retained).dense()
    pull = gradient_sum(objective, theta, objective.prepare(convex.removed)) + m * objective.l2 * theta
    step = torch.linalg.solve(curvature + objective.l2 * torch.eye(len(theta)), pull / r)
    assert torch.allclose(found - theta, step, atol=1e-6)


@pytest.mark.slow
def test_small_steps_end_nearer_to_retraining_than_one(convex):
    retained = fit_convex(logistic_regression(64, 10), convex.retained, loss=cross_entropy, l2=0.01, tolerance=1e-8)
    target = Objective(retained, cross_entropy, 0.01).theta()
    off = [float((newton.small_steps(convex, newton.Steps(k, 10_000, 500, 0.0)).theta - target).norm()) for k in (1, 4)]
    assert off[1] < 0.5 * off[0]


def test_dampening_shrinks_what_matters_to_the_removed_alone(task, monkeypatch):
    monkeypatch.setattr(saliency, "SELECTION", 2.0)
    state = saliency.dampening(task)
    whole, removed = (
        saliency._importance(task.objective, task.theta, samples) for samples in (task.removal.train, task.removed)
    )
    chosen = removed > 2.0 * whole
    assert chosen.any()
    assert torch.equal(state.theta[~chosen], task.theta[~chosen])
    assert torch.allclose(state.theta[chosen], (whole / removed * task.theta)[chosen])


def test_importance_is_the_mean_squared_gradient(task):
    samples = task.removed.select(torch.arange(3))
    found = saliency._importance(task.objective, task.theta, samples)
    each = [
        gradient_sum(task.objective, task.theta, samples.select(torch.tensor([place]))).square() for place in range(3)
    ]
    assert torch.allclose(found, sum(each) / 3, rtol=1e-3, atol=1e-9)
