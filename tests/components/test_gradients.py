from __future__ import annotations

import pytest
import torch
from torch import Tensor

from oubli.components.gradients import (
    gradient_norms,
    gradient_sum,
    objective_gradient,
    per_sample_gradients,
)
from oubli.components.objective import Objective
from oubli.components.reference.models import small_cnn
from oubli.components.samples import Samples


def one_at_a_time(objective: Objective, samples: Samples) -> Tensor:
    """The slow oracle: an ordinary backward pass for each sample through the module itself."""
    module = objective.module.requires_grad_(True)
    rows = []
    for inputs, label in zip(samples.inputs, samples.labels, strict=True):
        module.zero_grad()
        objective.loss(module(inputs[None]), label[None])[0].backward()
        rows.append(torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters()]))
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


def test_sum_and_norms_match_the_rows(network_objective, images):
    theta = network_objective.theta()
    rows = one_at_a_time(network_objective, images)
    for budget_bytes in (1, 2**30):
        total = gradient_sum(network_objective, theta, images, budget_bytes=budget_bytes)
        torch.testing.assert_close(total, rows.sum(0), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient_norms(network_objective, theta, images), rows.norm(dim=1), rtol=1e-10, atol=0)


def test_objective_gradient_holds_the_penalty(network_objective, images):
    theta = network_objective.theta().requires_grad_(True)
    value = network_objective.losses(theta, images).mean() + network_objective.penalty(theta)
    (expected,) = torch.autograd.grad(value, theta)
    found = objective_gradient(network_objective, theta.detach(), images)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
