from __future__ import annotations

import pytest
import torch
from oracles import dense_gauss_newton, dense_hessian
from torch import Tensor, nn

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.linear_head import LinearHead, find_linear_head
from oubli.components.errors import IndefiniteCurvature, NonFiniteInput
from oubli.components.model.losses import Loss, loss_function
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.solvers import SolverName


def curvature(objective: Objective, samples: Samples, block: Tensor | None = None, **options: int) -> GaussNewton:
    return GaussNewton(Restriction(objective, objective.theta(), block), samples, **options)


def labels_for(loss: Loss) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if loss is Loss.CROSS_ENTROPY:
        return torch.randint(0, 3, (20,), generator=generator)
    if loss is Loss.BCE_WITH_LOGITS:
        return torch.randint(0, 2, (20, 3), generator=generator)
    return torch.randn(20, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("loss", list(Loss))
def test_it_is_the_hessian_where_the_outputs_are_linear(loss, images):
    objective = Objective(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), loss_function(loss), 0.0)
    samples = Samples(images.inputs, labels_for(loss))
    torch.testing.assert_close(
        curvature(objective, samples).dense(), dense_hessian(objective, samples), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("budget_bytes", [1, 2**28])
def test_all_forms_match_the_definition(network, images, loss, budget_bytes):
    objective = Objective(network, loss_function(loss), 0.0)
    samples = Samples(images.inputs, labels_for(loss))
    expected = dense_gauss_newton(objective, samples)
    found = curvature(objective, samples, budget_bytes=budget_bytes)
    torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-12)
    factor = found.factor()
    assert factor.shape == (found.rank_bound(), found.size) == (60, len(expected))
    torch.testing.assert_close(factor.T @ factor, expected, rtol=1e-8, atol=1e-10)
    vector = torch.linspace(-1, 2, found.size, dtype=torch.float64)
    torch.testing.assert_close(found.matvec(vector), expected @ vector, rtol=1e-10, atol=1e-12)


def test_a_block_gives_the_sub_matrix(network_objective, images):
    full = curvature(network_objective, images)
    # The middle of a weight, one scalar of a later one, and the end: three tensors, one of them skipped.
    block = torch.cat([torch.arange(4, 11), torch.tensor([40]), torch.arange(full.size - 5, full.size)])
    part = curvature(network_objective, images, block)
    expected = full.dense()[block][:, block]
    torch.testing.assert_close(part.dense(), expected, rtol=1e-10, atol=1e-13)
    vector = torch.ones(len(block), dtype=torch.float64)
    torch.testing.assert_close(part.matvec(vector), expected @ vector, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(part.factor().T @ part.factor(), expected, rtol=1e-8, atol=1e-11)


def test_mean_diagonal_is_near_the_exact_one_and_repeatable(network_objective, images):
    found = curvature(network_objective, images)
    exact = float(found.dense().diagonal().mean())
    assert found.mean_diagonal() == pytest.approx(exact, rel=0.5)
    assert found.mean_diagonal() == found.mean_diagonal()


def test_mean_diagonal_is_exact_for_a_diagonal_matrix():
    # One feature per sample and squared errors: no two parameters meet in G.
    objective = Objective(nn.Linear(4, 1, bias=False), loss_function(Loss.MSE), 0.0)
    samples = Samples(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])), torch.zeros(4))
    assert curvature(objective, samples).mean_diagonal() == pytest.approx(2 * 30 / 4 / 4)


def test_outputs_without_a_feature_axis():
    objective = Objective(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), loss_function(Loss.BCE_WITH_LOGITS), 0.0)
    inputs = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = Samples(inputs, torch.arange(9) % 2)
    torch.testing.assert_close(
        curvature(objective, samples).dense(), dense_hessian(objective, samples), rtol=1e-10, atol=1e-12
    )


def test_a_loss_that_is_not_convex_has_no_factor(linear_objective, classes):
    concave = Objective(linear_objective.module, lambda outputs, labels: -outputs.square().sum(1), 0.0)
    found = curvature(concave, classes)
    with pytest.raises(IndefiniteCurvature, match="eigenvalue -2"):
        found.factor()
    assert float(torch.linalg.eigvalsh(found.dense())[0]) < 0


def test_a_loss_without_a_finite_hessian_has_no_factor():
    # |outputs|^1.5 has a gradient at 0, but no second derivative.
    objective = Objective(nn.Linear(4, 2), lambda outputs, labels: outputs.abs().pow(1.5).sum(1), 0.0)
    samples = Samples(torch.ones(3, 4), torch.zeros(3))
    restriction = Restriction(objective, torch.zeros_like(objective.theta()), None)
    with pytest.raises(NonFiniteInput, match="Hessian in the outputs"):
        GaussNewton(restriction, samples).factor()


@pytest.mark.parametrize("names", [("token", "tokens"), ("recurrent", "sequences")])
@pytest.mark.parametrize("budget_bytes", [1, 2**28])
def test_attention_and_recurrent_cells_in_all_forms(request, names, budget_bytes):
    # Fused attention has no second derivative, and vmap has no rule for recurrent cells.
    objective, samples = request.getfixturevalue(f"{names[0]}_objective"), request.getfixturevalue(names[1])
    expected = dense_gauss_newton(objective, samples)
    found = curvature(objective, samples, budget_bytes=budget_bytes)
    torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.factor().T @ found.factor(), expected, rtol=1e-8, atol=1e-10)
    vector = torch.linspace(-1, 2, found.size, dtype=torch.float64)
    torch.testing.assert_close(found.matvec(vector), expected @ vector, rtol=1e-10, atol=1e-12)
    assert found.product_flops() > 0


class ReusedHead(nn.Module):
    """Returns what its linear layer returns, but calls it twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(self.linear(inputs))


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_head_is_built_from_its_features(loss, bias):
    module = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3, bias=bias))
    objective = Objective(module, loss_function(loss), 0.0, trained=["2"])
    inputs = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = Samples(inputs, labels_for(loss))
    head = find_linear_head(objective, inputs[:1])
    assert head == LinearHead("2", bias, 3, 4 + bias)
    found = curvature(objective, samples)
    torch.testing.assert_close(found.dense(), dense_gauss_newton(objective, samples), rtol=1e-10, atol=1e-12)
    assert found.dense_flops() < 2 * found.rank_bound() * found.size**2
    # On a part of it the general way is taken, with the same result.
    block = torch.tensor([0, 3, 5])
    part = curvature(objective, samples, block)
    torch.testing.assert_close(part.dense(), found.dense()[block][:, block], rtol=1e-10, atol=1e-12)
    assert part.dense_flops() == 2 * 60 * 9


def test_a_linear_head_is_solved_directly_where_its_rows_would_cost_too_much(monkeypatch):
    objective = Objective(nn.Linear(5, 3), loss_function(Loss.CROSS_ENTROPY), 0.0)
    inputs = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = curvature(objective, Samples(inputs, labels_for(Loss.CROSS_ENTROPY)))
    cholesky = found.size**3 / 3
    monkeypatch.setattr("oubli.components.solvers.choosing.EXPECTED_ITERATIONS", 0)
    limit = "oubli.components.solvers.choosing.DIRECT_FLOPS"
    monkeypatch.setattr(limit, found.dense_flops() + cholesky)
    assert found.system().solve(torch.ones(found.size).double(), 1.0).solver is SolverName.CHOLESKY
    monkeypatch.setattr(limit, found.dense_flops() + cholesky - 1)
    assert found.system().solve(torch.ones(found.size).double(), 1.0).solver is SolverName.CONJUGATE_GRADIENTS


def test_what_only_looks_like_a_head_is_none(images):
    one = images.inputs[:1]
    assert (
        find_linear_head(Objective(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), loss_function(Loss.MSE), 0.0), one)
        is None
    )
    deep = Objective(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)), loss_function(Loss.MSE), 0.0)
    assert find_linear_head(deep, one[0, 0]) is None
    assert find_linear_head(Objective(ReusedHead(), loss_function(Loss.MSE), 0.0), torch.ones(1, 3).double()) is None
    weight_only = Objective(nn.Linear(4, 3), loss_function(Loss.MSE), 0.0, trained=["weight"])
    assert find_linear_head(weight_only, one[0, 0]) == LinearHead("", False, 3, 4)
