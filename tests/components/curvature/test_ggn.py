from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev

from oubli.components.curvature.ggn import GaussNewton
from oubli.components.errors import IndefiniteCurvature, NonFiniteInput
from oubli.components.losses import Loss, loss_function
from oubli.components.objective import Objective
from oubli.components.restriction import Restriction
from oubli.components.samples import Samples


def curvature(objective: Objective, samples: Samples, block: Tensor | None = None, **options: int) -> GaussNewton:
    return GaussNewton(Restriction(objective, objective.theta(), block), samples, **options)


def dense_hessian(objective: Objective, samples: Samples) -> Tensor:
    return jacrev(jacrev(lambda theta: objective.losses(theta, samples).mean()))(objective.theta())


def by_definition(objective: Objective, samples: Samples) -> Tensor:
    """The slow oracle: J^T B J of the definition, sample by sample, by reverse mode alone."""
    theta = objective.theta()
    total = torch.zeros(len(theta), len(theta), dtype=theta.dtype)
    for inputs, label in zip(samples.inputs, samples.labels, strict=True):

        def output(weights: Tensor, inputs: Tensor = inputs) -> Tensor:
            return objective.outputs(objective.space.unflatten(weights), inputs[None])[0]

        def loss(at: Tensor, label: Tensor = label) -> Tensor:
            return objective.loss(at[None], label[None])[0]

        jacobian = torch.autograd.functional.jacobian(output, theta)
        inner = torch.autograd.functional.hessian(loss, output(theta))
        total += jacobian.T @ inner @ jacobian
    return total / len(samples)


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
    expected = by_definition(objective, samples)
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
