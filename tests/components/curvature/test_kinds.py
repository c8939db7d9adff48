from __future__ import annotations

import pytest
import torch
from oracles import dense_gauss_newton
from torch import nn

from oubli.components.curvature.kinds import CurvatureKind, curvature_builder
from oubli.components.curvature.secant import Secant
from oubli.components.model.losses import Loss, loss_function
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples


@pytest.mark.parametrize("kind", list(CurvatureKind))
def test_every_kind_keeps_the_protocol(network_objective, images, kind):
    theta = network_objective.theta()
    secant = Secant(torch.ones_like(theta), torch.linspace(-1, 2, len(theta), dtype=theta.dtype))
    build = curvature_builder(kind, secant=secant)
    found = build(Restriction(network_objective, theta, None), images)
    assert found.size == len(theta)
    matrix = found.dense()
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-10, atol=1e-12)
    vector = torch.linspace(-1, 2, found.size, dtype=torch.float64)
    torch.testing.assert_close(found.matvec(vector), matrix @ vector, rtol=1e-9, atol=1e-11)
    system = found.system()
    assert system.mean_diagonal() == pytest.approx(float(matrix.diagonal().mean()))
    for shift in (2.0, 5.0):
        expected = torch.linalg.solve(matrix + shift * torch.eye(found.size, dtype=torch.float64), vector)
        torch.testing.assert_close(system.solve(vector, shift).x, expected, rtol=1e-7, atol=1e-9)
    # The same call gives the same bits.
    again = build(Restriction(network_objective, theta, None), images).system()
    assert torch.equal(again.solve(vector, 2.0).x, system.solve(vector, 2.0).x)


@pytest.mark.parametrize("kind", [CurvatureKind.SAMPLED_FISHER, CurvatureKind.KFAC, CurvatureKind.EKFAC])
def test_the_seed_is_passed_on(network_objective, images, kind):
    restriction = Restriction(network_objective, network_objective.theta(), None)
    first, second = (curvature_builder(kind, seed=seed)(restriction, images).dense() for seed in (0, 1))
    assert float((first - second).norm()) > 1e-3 * float(first.norm())


@pytest.mark.parametrize("kind", [CurvatureKind.KFAC, CurvatureKind.EKFAC])
def test_exact_factors_know_no_seed(network_objective, images, kind):
    restriction = Restriction(network_objective, network_objective.theta(), None)
    first, second = (curvature_builder(kind, seed=seed, exact=True)(restriction, images).dense() for seed in (0, 1))
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", [kind for kind in CurvatureKind if kind is not CurvatureKind.FINITE_DIFFERENCE])
@pytest.mark.parametrize("loss", [Loss.BCE_WITH_LOGITS, Loss.MSE, None])
def test_outputs_without_a_feature_axis(kind, loss):
    function = loss_function(loss) if loss else (lambda outputs, labels: (outputs - labels).square())
    objective = Objective(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), function, 0.0)
    inputs = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = Samples(inputs, (torch.arange(9) % 2).double())
    if loss is None and kind is CurvatureKind.SAMPLED_FISHER:
        return  # draws no labels: tested in test_fisher.py
    found = curvature_builder(kind, exact=True)(Restriction(objective, objective.theta(), None), samples)
    vector = torch.linspace(-1, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(found.matvec(vector), found.dense() @ vector)
    expected = dense_gauss_newton(objective, samples)
    if kind in (CurvatureKind.GGN, CurvatureKind.HESSIAN):
        torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-12)
    if kind is CurvatureKind.EKFAC:
        torch.testing.assert_close(found.dense().trace(), expected.trace(), rtol=1e-10, atol=1e-12)
