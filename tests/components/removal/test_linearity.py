from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from oubli.components.model.losses import cross_entropy, mse
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.removal.linearity import prediction_error


class Square(nn.Module):
    """w^2 x: from w = 1 by a step s the outputs change by (2s + s^2) x, of which 2s x is predicted."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.w.square() * inputs


def test_the_error_is_the_second_order_over_the_first():
    objective = Objective(Square(), mse, 0.0)
    held_out = Samples(torch.tensor([[1.0], [-3.0], [0.5]]), torch.zeros(3, 1))
    theta = objective.theta()
    for step in (0.1, 0.5, -0.8, 2.0):
        assert prediction_error(objective, theta, theta + step, held_out) == pytest.approx(abs(step) / 2)


def test_a_linear_model_is_predicted_exactly_and_no_step_has_no_error():
    objective = Objective(nn.Linear(3, 2), cross_entropy, 0.0)
    held_out = Samples(torch.randn(20, 3), torch.zeros(20, dtype=torch.int64))
    theta = objective.theta()
    assert prediction_error(objective, theta, theta + 100 * torch.ones_like(theta), held_out) < 1e-12
    assert prediction_error(objective, theta, theta.clone(), held_out) == 0.0


def test_weights_that_are_not_finite_are_predicted_by_nothing():
    objective = Objective(nn.Linear(3, 2), cross_entropy, 0.0)
    held_out = Samples(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64))
    theta = objective.theta()
    assert prediction_error(objective, theta, theta * math.nan, held_out) == math.inf


def test_an_output_that_changes_where_none_was_predicted_to_has_no_bound():
    """At w = 0 the derivative of w^2 is 0, and every step changes the outputs."""
    objective = Objective(Square(), mse, 0.0)
    held_out = Samples(torch.ones(2, 1), torch.zeros(2, 1))
    at_zero = torch.zeros(1, dtype=torch.float64)
    assert prediction_error(objective, at_zero, at_zero + 0.5, held_out) == math.inf


def test_a_network_is_predicted_the_better_the_shorter_the_step(network_objective, images):
    theta = network_objective.theta()
    direction = torch.randn(len(theta), generator=torch.Generator().manual_seed(0), dtype=theta.dtype)
    errors = [prediction_error(network_objective, theta, theta + t * direction, images) for t in (1e-3, 1e-2, 1e-1)]
    assert errors[0] < errors[1] < errors[2]
