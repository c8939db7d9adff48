from __future__ import annotations

import pytest
import torch
from oracles import dense_gauss_newton, dense_hessian

from oubli.components.curvature.hessian import DENSE_COLUMNS, Hessian
from oubli.components.errors import IndefiniteCurvature
from oubli.components.model.restriction import Restriction
from oubli.components.solvers import DenseSystem, ProductSystem


@pytest.fixture(params=["network", "token", "recurrent"])
def problem(request):
    objective = request.getfixturevalue(f"{request.param}_objective")
    samples = {"network": "images", "token": "tokens", "recurrent": "sequences"}[request.param]
    return objective, request.getfixturevalue(samples)


@pytest.mark.parametrize("budget_bytes", [1, 2**28])
def test_all_forms_match_the_oracle(problem, budget_bytes):
    objective, samples = problem
    if budget_bytes == 1:
        samples = samples.select(torch.arange(3))
    expected = dense_hessian(objective, samples)
    found = Hessian(Restriction(objective, objective.theta(), None), samples, budget_bytes)
    assert found.size == len(expected)
    vector = torch.linspace(-1, 2, found.size, dtype=torch.float64)
    torch.testing.assert_close(found.matvec(vector), expected @ vector, rtol=1e-10, atol=1e-12)
    if budget_bytes > 1 or found.size < 100:
        torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-12)


def test_a_block_gives_the_sub_matrix(network_objective, images):
    theta = network_objective.theta()
    block = torch.cat([torch.arange(4, 11), torch.tensor([40]), torch.arange(len(theta) - 5, len(theta))])
    found = Hessian(Restriction(network_objective, theta, block), images)
    expected = dense_hessian(network_objective, images)[block][:, block]
    torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-13)
    vector = torch.ones(len(block), dtype=torch.float64)
    torch.testing.assert_close(found.matvec(vector), expected @ vector, rtol=1e-10, atol=1e-13)


def test_it_is_the_gauss_newton_matrix_where_outputs_are_linear(linear_objective, classes):
    found = Hessian(Restriction(linear_objective, linear_objective.theta(), None), classes)
    expected = dense_gauss_newton(linear_objective, classes)
    torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-13)


def test_both_ways_of_solving_agree(linear_objective, classes):
    found = Hessian(Restriction(linear_objective, linear_objective.theta(), None), classes)
    b = torch.linspace(1, 2, found.size, dtype=torch.float64)
    direct = found.system()
    assert isinstance(direct, DenseSystem)
    iterated = ProductSystem(found.matvec, found.mean_diagonal)
    torch.testing.assert_close(direct.solve(b, 0.1).x, iterated.solve(b, 0.1).x, rtol=1e-7, atol=1e-9)
    assert iterated.mean_diagonal() == pytest.approx(direct.mean_diagonal(), rel=0.5)


def test_both_ways_find_the_negative_curvature_of_a_network(network_objective, images):
    restriction = Restriction(network_objective, network_objective.theta(), None)
    found = Hessian(restriction, images)
    matrix = dense_hessian(network_objective, images)
    values, vectors = torch.linalg.eigh(matrix)
    assert float(values[0]) < -1e-3  # short of a minimum: a saddle
    with pytest.raises(IndefiniteCurvature, match="smallest eigenvalue -"):
        found.system().solve(vectors[:, 0], 0.0)
    with pytest.raises(IndefiniteCurvature, match="curvature met in iteration"):
        ProductSystem(found.matvec, found.mean_diagonal).solve(vectors[:, 0] + vectors[:, -1], 0.0)
    # Above the most negative eigenvalue there is a solution.
    shift = -2 * float(values[0])
    expected = torch.linalg.solve(matrix + shift * torch.eye(len(values), dtype=values.dtype), vectors[:, 0])
    torch.testing.assert_close(found.system().solve(vectors[:, 0], shift).x, expected, rtol=1e-6, atol=1e-9)


def test_large_blocks_are_left_to_products(network_objective, images, monkeypatch):
    found = Hessian(Restriction(network_objective, network_objective.theta(), None), images)
    assert found.size <= DENSE_COLUMNS
    monkeypatch.setattr("oubli.components.curvature.hessian.DENSE_COLUMNS", found.size - 1)
    assert isinstance(found.system(), ProductSystem)
