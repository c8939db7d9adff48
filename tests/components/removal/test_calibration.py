from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from oubli.components.errors import NonFiniteInput
from oubli.components.removal.calibration import (
    SHIFT_PENALTY,
    BernoulliProblem,
    NormalProblem,
    Problem,
    SoftmaxProblem,
    by_divergence,
    by_moments,
)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problems() -> list[Problem]:
    source, noise = normal(60, 4, seed=1), normal(60, 4, seed=2)
    reference = 1.7 * source + noise + torch.tensor([0.5, -1.0, 0.0, 0.3], dtype=torch.float64)
    kinds = (SoftmaxProblem, BernoulliProblem, NormalProblem)
    return [kind(source, reference) for kind in kinds]


def slow_values(problem: Problem, parameters: np.ndarray) -> list[float]:
    """Each problem's objective, row by row, by the definition of the divergence."""
    s, y = problem.source.numpy(), problem.reference.numpy()
    if isinstance(problem, SoftmaxProblem):
        total = 0.0
        for row, other in zip(s, y, strict=True):
            z = parameters[0, 0] * row + parameters[0, 1:]
            p, q = np.exp(other) / np.exp(other).sum(), np.exp(z) / np.exp(z).sum()
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        return [total / len(s) + SHIFT_PENALTY * (parameters[0, 1:] ** 2).sum()]
    values = []
    for j, (b, c) in enumerate(parameters):
        total = 0.0
        for x, t in zip(s[:, j], y[:, j], strict=True):
            z = b * x + c
            if isinstance(problem, NormalProblem):
                total += (t - z) ** 2 / 2
            else:
                p, q = 1 / (1 + math.exp(-t)), 1 / (1 + math.exp(-z))
                total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        values.append(total / len(s) + SHIFT_PENALTY * c**2)
    return values


@pytest.mark.parametrize("problem", problems(), ids=lambda one: type(one).__name__)
def test_the_minimiser_is_that_of_a_general_optimiser_on_the_definition(problem):
    found = by_divergence(problem)
    shape = found.shape
    slow = optimize.minimize(
        lambda flat: sum(slow_values(problem, flat.reshape(shape))),
        np.zeros(found.numel()),
        method="BFGS",
        options={"gtol": 1e-7},
    )
    torch.testing.assert_close(found, torch.tensor(slow.x).reshape(shape), rtol=1e-4, atol=1e-5)
    assert sum(slow_values(problem, found.numpy())) <= slow.fun + 1e-12


@pytest.mark.parametrize("problem", problems(), ids=lambda one: type(one).__name__)
def test_derivatives_are_those_of_the_value(problem):
    at = problem.start + 0.3 * normal(*problem.start.shape, seed=5)
    gradient, hessian = problem.derivatives(at)
    flat = torch.autograd.functional.jacobian(lambda x: problem.value(x).sum(), at)
    torch.testing.assert_close(gradient, flat)
    full = torch.autograd.functional.hessian(lambda x: problem.value(x).sum(), at)
    for j in range(len(at)):
        torch.testing.assert_close(hessian[j], full[j, :, j])
    torch.testing.assert_close(problem.value(at), torch.tensor(slow_values(problem, at.numpy()), dtype=torch.float64))


def test_normal_outputs_are_a_ridge_regression_in_closed_form():
    problem = problems()[2]
    for j, (b, c) in enumerate(by_divergence(problem)):
        s, y = problem.source[:, j], problem.reference[:, j]
        A = torch.stack(
            [torch.stack([(s * s).mean(), s.mean()]), torch.stack([s.mean(), s.new_tensor(1 + 2 * SHIFT_PENALTY)])]
        )
        expected = torch.linalg.solve(A, torch.stack([(s * y).mean(), y.mean()]))
        torch.testing.assert_close(torch.stack([b, c]), expected)


@pytest.mark.parametrize("kind", [SoftmaxProblem, BernoulliProblem, NormalProblem])
def test_a_model_half_as_sure_is_made_twice_as_sure(kind):
    source = normal(30, 3, seed=3)
    source -= source.mean(1, keepdim=True)
    found = by_divergence(kind(source, 2 * source))
    assert torch.allclose(found[:, 0], torch.tensor(2.0, dtype=torch.float64), atol=1e-7)
    assert torch.allclose(found[:, 1:], torch.zeros((), dtype=torch.float64), atol=1e-7)


@pytest.mark.parametrize("kind", [SoftmaxProblem, BernoulliProblem, NormalProblem])
def test_outputs_that_are_always_zero_get_a_shift_alone(kind):
    reference = torch.tensor([[1.0, -1.0]], dtype=torch.float64).repeat(9, 1)
    found = by_divergence(kind(torch.zeros(9, 2, dtype=torch.float64), reference))
    assert bool(torch.isfinite(found).all())
    shift = found[0, 1:] if kind is SoftmaxProblem else found[:, 1]
    assert torch.allclose(shift, reference[0], atol=0.05)  # but for the penalty


def test_very_sure_models_converge():
    source = 200 * normal(50, 3, seed=7)
    for kind in (SoftmaxProblem, BernoulliProblem):
        assert bool(torch.isfinite(by_divergence(kind(source, 30 * normal(50, 3, seed=8)))).all())


def test_moments_by_hand():
    # Means 1 and 3, standard deviations 1 and 2.
    scale, shift = by_moments(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]]))
    assert (scale.item(), shift.item()) == (2.0, 1.0)
    # What is constant says nothing: the reference's mean is all that is left.
    scale, shift = by_moments(torch.tensor([[7.0], [7.0]]), torch.tensor([[1.0], [5.0]]))
    assert (scale.item(), shift.item()) == (0.0, 3.0)


def test_outputs_that_are_not_finite_are_refused():
    with pytest.raises(NonFiniteInput, match="held-out"):
        by_divergence(SoftmaxProblem(torch.full((3, 2), torch.nan), torch.zeros(3, 2)))
