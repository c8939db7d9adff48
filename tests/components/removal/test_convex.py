from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from oubli.components.curvature import factors
from oubli.components.curvature.factors import CurvatureFactor, take_factor
from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NonFiniteInput, NumericalError
from oubli.components.model.gradients import RemovedGradient, objective_gradient
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.removal import convex
from oubli.components.removal.convex import convex_removal
from oubli.components.removal.update import RemovalUpdate

L2 = 1e-3


@pytest.fixture(scope="module")
def digits() -> Samples:
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))[:600]
    return Samples(torch.tensor(data.data / 16.0)[order], torch.tensor(data.target)[order])


@pytest.fixture(scope="module")
def objective() -> Objective:
    module = nn.Linear(64, 10).double()
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return Objective(module, cross_entropy, L2)


@pytest.fixture(scope="module")
def theta(objective, digits) -> Tensor:
    return minimiser(objective, digits)


@pytest.fixture(scope="module")
def factor(objective, theta, digits) -> CurvatureFactor:
    return taken(objective, theta, digits)


def minimiser(objective: Objective, source: Samples) -> Tensor:
    """The slow oracle: Newton steps with the whole matrix in float64, halved where they overshoot, to rounding."""
    theta = torch.zeros(objective.space.d, dtype=torch.float64)
    for _ in range(40):
        gradient = objective_gradient(objective, theta, source)
        matrix = GaussNewton(Restriction(objective, theta, None), source).dense()
        matrix.diagonal().add_(objective.l2)
        step = torch.linalg.solve(matrix, -gradient)
        while float(objective_gradient(objective, theta + step, source).norm()) > float(gradient.norm()) * 1.5 + 1e-13:
            step = step / 2
        theta = theta + step
        if float(step.norm()) < 1e-13:
            break
    return theta


def taken(objective: Objective, theta: Tensor, source: Samples) -> CurvatureFactor:
    factor = take_factor(objective, theta, source)
    assert factor is not None
    return factor


def parted(samples: Samples, removed: Tensor) -> tuple[Samples, Samples]:
    stays = torch.ones(len(samples), dtype=torch.bool)
    stays[removed] = False
    return samples.select(stays.nonzero().flatten()), samples.select(removed)


def removal(objective, theta, factor, samples, removed, **options) -> RemovalUpdate:
    retained, gone = parted(samples, removed)
    return convex_removal(objective, theta, retained, RemovedGradient.of(objective, theta, gone), factor, **options)


def class_half(samples: Samples) -> Tensor:
    members = (samples.labels == 3).nonzero().flatten()
    return members[: len(members) // 2]


@pytest.mark.parametrize("case", ["one", "ten", "hundred", "half a class"])
def test_it_ends_at_the_minimiser_within_the_bound_it_reports(objective, theta, factor, digits, case):
    sets = {"one": torch.arange(1), "ten": torch.arange(10), "hundred": torch.arange(100)}
    removed = sets.get(case, class_half(digits))
    update = removal(objective, theta, factor, digits, removed)
    truth = minimiser(objective, parted(digits, removed)[0])
    distance, moved = float((update.theta - truth).norm()), float((theta - truth).norm())
    assert distance <= 1e-6 * moved
    bound = update.steps[-1].bound
    assert bound is not None
    # The oracle is itself right to rounding alone.
    assert distance <= bound + 1e-12
    assert bound <= 1e-6 * moved * (1 + 1e-5)


@pytest.mark.parametrize("limits", [(0, 2**28), (0, 0)])
def test_structure_leads_to_the_same_weights_as_the_whole_matrix(monkeypatch, objective, theta, factor, digits, limits):
    monkeypatch.setattr(factors, "DENSE_PARAMETERS", limits[0])
    monkeypatch.setattr(factors, "OUTPUT_ELEMENTS", limits[1])
    coarse = taken(objective, theta, digits)
    assert coarse.form is not factor.form
    removed = torch.arange(20)
    dense = removal(objective, theta, factor, digits, removed)
    update = removal(objective, theta, coarse, digits, removed)
    moved = float((dense.theta - theta).norm())
    assert float((update.theta - dense.theta).norm()) <= 2e-6 * moved


def test_the_factor_saves_passes(objective, theta, factor, digits):
    class Identity:
        d = objective.space.d

        def solve(self, vector: Tensor) -> Tensor:
            return vector

    removed = torch.arange(10)
    kept = sum(step.passes for step in removal(objective, theta, factor, digits, removed).steps)
    none = sum(step.passes for step in removal(objective, theta, Identity(), digits, removed).steps)
    assert kept <= none / 4


def test_a_chain_from_one_factor_costs_what_its_first_removal_did(objective, theta, factor, digits):
    at, passes = theta, []
    for last in range(30):
        retained, _ = parted(digits, torch.arange(last + 1))
        gone = RemovedGradient.of(objective, at, digits.select(torch.tensor([last])))
        update = convex_removal(objective, at, retained, gone, factor)
        at = update.theta
        passes.append(sum(step.passes for step in update.steps))
    truth = minimiser(objective, parted(digits, torch.arange(30))[0])
    assert float((at - truth).norm()) <= 1e-6 * float((theta - truth).norm())
    assert sum(passes[-5:]) <= 1.5 * sum(passes[:5])


def test_it_starts_anywhere(objective, factor, digits):
    """A model that training left far from its minimum ends at the minimiser too."""
    far = torch.randn(objective.space.d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    removed = torch.arange(10)
    update = removal(objective, far, factor, digits, removed)
    truth = minimiser(objective, parted(digits, removed)[0])
    assert float((update.theta - truth).norm()) <= 1e-6 * float((far - truth).norm())
    assert update.model_gradient > update.removal_gradient


def test_nothing_is_done_at_the_minimiser(objective, factor, digits):
    removed = torch.arange(10)
    there = minimiser(objective, parted(digits, removed)[0])
    update = removal(objective, there, factor, digits, removed)
    assert update.steps == ()
    assert torch.equal(update.theta, there)


def test_the_weights_given_stay_as_they_are(objective, theta, factor, digits):
    before = theta.clone()
    fractions = []
    removal(objective, theta, factor, digits, torch.arange(10), on_progress=fractions.append)
    assert torch.equal(theta, before)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_what_cannot_be(objective, theta, factor, digits):
    gone = RemovedGradient.of(objective, theta, digits.select(torch.arange(2)))
    retained = digits.select(torch.arange(2, 600))
    free = Objective(objective.module, cross_entropy, 0.0)
    with pytest.raises(ConfigurationError, match="l2 is 0"):
        convex_removal(free, theta, retained, gone, factor)
    other = Objective(nn.Linear(4, 3), cross_entropy, L2)
    few = Samples(torch.ones(3, 4), torch.tensor([0, 1, 2]))
    with pytest.raises(ConfigurationError, match="The factor is of 650 parameters, the model has 15"):
        convex_removal(other, other.theta(), few, RemovedGradient(other.theta(), 1), factor)
    with pytest.raises(NonFiniteInput):
        convex_removal(objective, theta * float("nan"), retained, gone, factor)


def test_an_objective_that_is_not_convex_is_refused(factor, theta, digits):
    def bends_down(outputs: Tensor, labels: Tensor) -> Tensor:
        return -(outputs**2).sum(1)

    module = nn.Linear(64, 10).double()
    odd = Objective(module, bends_down, L2)
    with pytest.raises(IndefiniteCurvature, match="not strictly convex"):
        removal(odd, theta, factor, digits, torch.arange(10))


def test_a_bound_that_is_not_reached_is_said(monkeypatch, objective, factor, digits):
    monkeypatch.setattr(convex, "STEPS", 1)
    with pytest.raises(NumericalError, match="after 1 steps; 1e-06 is needed"):
        removal(objective, torch.zeros(650, dtype=torch.float64), factor, digits, torch.arange(10))
