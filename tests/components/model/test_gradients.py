from __future__ import annotations

import pytest
import torch
from model_zoo import CONTINUOUS, EVERY, NOT_MAPPED, problem
from torch import Tensor, nn
from torch.nn import functional

from oubli.components.errors import ConfigurationError
from oubli.components.model.gradients import (
    PerSampleWay,
    gradient_sum,
    objective_gradient,
    per_sample_gradients,
    per_sample_way,
)
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.reference.models import small_cnn


def one_at_a_time(objective: Objective, samples: Samples) -> Tensor:
    """The slow oracle: an ordinary backward pass for each sample through the module itself."""
    module = objective.module.requires_grad_(True)
    parameters = dict(module.named_parameters())
    rows = []
    for inputs, label in zip(samples.inputs, samples.labels, strict=True):
        module.zero_grad()
        objective.loss(module(inputs[None]), label[None])[0].backward()
        found = [(parameters[name], parameters[name].grad) for name in objective.space.names]
        rows.append(torch.cat([(torch.zeros_like(one) if row is None else row).reshape(-1) for one, row in found]))
    module.requires_grad_(False)
    return torch.stack(rows)


@pytest.mark.parametrize("budget_bytes", [1, 40_000, 2**30])
def test_per_sample_gradients_match_one_backward_pass_each(network_objective, images, budget_bytes):
    theta = network_objective.theta()
    chunks = list(per_sample_gradients(network_objective, theta, images, budget_bytes=budget_bytes))
    if budget_bytes == 1:
        assert {len(chunk) for chunk in chunks} == {1}
    expected = one_at_a_time(network_objective, images)
    torch.testing.assert_close(torch.cat(chunks), expected, rtol=1e-10, atol=1e-10)


def test_per_sample_gradients_of_the_reference_network():
    objective = Objective(small_cnn(8, 8, 1, 10), torch.nn.CrossEntropyLoss(reduction="none"), 0.0)
    inputs = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = Samples(inputs, torch.arange(5))
    found = torch.cat(list(per_sample_gradients(objective, objective.theta(), samples)))
    torch.testing.assert_close(found, one_at_a_time(objective, samples), rtol=1e-10, atol=1e-10)


def test_the_sum_is_that_of_the_rows(network_objective, images):
    theta = network_objective.theta()
    rows = one_at_a_time(network_objective, images)
    for budget_bytes in (1, 2**30):
        total = gradient_sum(network_objective, theta, images, budget_bytes=budget_bytes)
        torch.testing.assert_close(total, rows.sum(0), rtol=1e-10, atol=1e-10)


def test_objective_gradient_holds_the_penalty(network_objective, images):
    theta = network_objective.theta().requires_grad_(True)
    value = network_objective.losses(theta, images).mean() + network_objective.penalty(theta)
    (expected,) = torch.autograd.grad(value, theta)
    found = objective_gradient(network_objective, theta.detach(), images)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_every_kind_of_layer_matches_one_backward_pass_each(name):
    objective, samples = problem(name)
    theta = objective.theta()
    expected = one_at_a_time(objective, samples)
    assert per_sample_way(objective, theta, samples) is (
        PerSampleWay.ONE_BY_ONE if name in NOT_MAPPED else PerSampleWay.VMAP
    )
    found = torch.cat(list(per_sample_gradients(objective, theta, samples)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient_sum(objective, theta, samples), expected.sum(0), rtol=0, atol=1e-10)
    assert bool(found.any(dim=0).sum() > 0.3 * found.shape[1])


@pytest.mark.parametrize("name", CONTINUOUS)
def test_both_ways_give_the_same_rows(name):
    objective, samples = problem(name)
    rows = [
        torch.cat(list(per_sample_gradients(objective, objective.theta(), samples, way=way))) for way in PerSampleWay
    ]
    torch.testing.assert_close(rows[0], rows[1], rtol=0, atol=1e-12)


def test_one_by_one_keeps_to_the_budget_and_the_order():
    objective, samples = problem("branching")
    theta = objective.theta()
    chunks = list(per_sample_gradients(objective, theta, samples, budget_bytes=1))
    assert [len(chunk) for chunk in chunks] == [1] * len(samples)
    torch.testing.assert_close(torch.cat(chunks), one_at_a_time(objective, samples), rtol=0, atol=1e-10)


def test_only_trained_parameters_have_gradients():
    objective, samples = problem("images")
    whole = one_at_a_time(objective, samples)
    head = Objective(objective.module, cross_entropy, 0.0, trained=["10", "3.bias"])
    found = torch.cat(list(per_sample_gradients(head, head.theta(), samples)))
    space = objective.space
    columns = torch.cat([torch.tensor(space.range_of(name)) for name in head.space.names])
    torch.testing.assert_close(found, whole[:, columns], rtol=0, atol=1e-10)


def test_parameters_that_take_no_part_have_zero_gradients():
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.used(inputs)

    _, samples = problem("mlp")
    objective = Objective(Idle(), cross_entropy, 0.0, trained=["idle"])
    assert not gradient_sum(objective, objective.theta(), samples).any()
    for way in PerSampleWay:
        (rows,) = per_sample_gradients(objective, objective.theta(), samples, way=way)
        assert rows.shape == (len(samples), 27)
        assert not rows.any()


def test_a_model_that_stays_random_is_refused():
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            return functional.dropout(self.layer(inputs), 0.5)

    _, samples = problem("mlp")
    objective = Objective(Careless(), cross_entropy, 0.0)
    with pytest.raises(ConfigurationError, match="Careless draws random numbers in evaluation mode"):
        list(per_sample_gradients(objective, objective.theta(), samples))


def test_a_model_that_fails_raises_its_own_error():
    objective, samples = problem("mlp")
    wrong = Samples(samples.inputs[:, :7], samples.labels)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(per_sample_gradients(objective, objective.theta(), wrong))
