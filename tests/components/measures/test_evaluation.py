from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from oubli.components.measures.evaluation import (
    Evaluation,
    ThreeSets,
    evaluate,
    parameter_distance,
    prediction_divergence,
    retained_gradient_norm,
    tug_of_war,
)
from oubli.components.model.gradients import objective_gradient
from oubli.components.model.losses import bce_with_logits
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples


class TinyBatches:
    """A source that insists on batches of 3, to cross batch boundaries."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, size: int):
        return self.samples.batches(min(size, 3))


def test_evaluation_is_the_plain_mean(network_objective, images):
    module = network_objective.module
    scores = module(images.inputs)
    for source in (images, TinyBatches(images)):
        found = evaluate(network_objective, network_objective.theta(), source)
        assert found.n == 20
        assert found.loss == pytest.approx(float(functional.cross_entropy(scores, images.labels)))
        assert found.accuracy == pytest.approx(float((scores.argmax(1) == images.labels).double().mean()))


def test_squared_errors_have_no_accuracy(regression_objective, targets):
    found = evaluate(regression_objective, regression_objective.theta(), targets)
    assert found.accuracy is None
    assert found.loss > 0


def test_retained_gradient_norm(network_objective, images):
    theta = network_objective.theta()
    expected = float(objective_gradient(network_objective, theta, images).norm())
    assert retained_gradient_norm(network_objective, theta, TinyBatches(images)) == pytest.approx(expected)


def test_divergence_is_the_definition(linear_objective, classes):
    first, second = linear_objective.theta(), linear_objective.theta() * -1
    p, q = (
        linear_objective.outputs(linear_objective.space.unflatten(theta), classes.inputs).softmax(1)
        for theta in (first, second)
    )
    middle = (p + q) / 2
    expected = ((p * (p / middle).log()).sum(1) + (q * (q / middle).log()).sum(1)).mean() / 2
    for source in (classes, TinyBatches(classes)):
        found = prediction_divergence((linear_objective, first), (linear_objective, second), source)
        assert found == pytest.approx(float(expected))
    assert prediction_divergence((linear_objective, second), (linear_objective, first), classes) == pytest.approx(
        float(expected)
    )
    assert prediction_divergence((linear_objective, first), (linear_objective, first), classes) == pytest.approx(
        0, abs=1e-15
    )


def test_divergence_of_opposite_certainties_is_log_two(classes):
    objective = Objective(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), bce_with_logits, 0.0)
    sure = torch.tensor([0.0, 0, 0, 0, 5000], dtype=torch.float64)
    assert prediction_divergence((objective, sure), (objective, -sure), classes) == pytest.approx(math.log(2))


def test_squared_errors_have_no_divergence(regression_objective, targets):
    theta = regression_objective.theta()
    assert prediction_divergence((regression_objective, theta), (regression_objective, theta), targets) is None


def test_parameter_distance():
    retrained, updated, original = torch.zeros(2), torch.tensor([0.0, 1.0]), torch.tensor([3.0, 4.0])
    assert parameter_distance(updated, retrained) == 1
    assert parameter_distance(updated, retrained, relative_to=original) == pytest.approx(0.2)
    assert parameter_distance(original, retrained, relative_to=original) == 1
    assert parameter_distance(retrained, retrained, relative_to=retrained) == 0
    assert parameter_distance(updated, retrained, relative_to=retrained) == math.inf


def three(forget: float | None, retained: float | None, test: float | None) -> ThreeSets:
    return ThreeSets(*(Evaluation(10, 1.0, one) for one in (forget, retained, test)))


def test_tug_of_war():
    retrained = three(0.6, 0.99, 0.9)
    assert tug_of_war(retrained, retrained) == 1
    assert tug_of_war(three(0.7, 0.97, 0.95), retrained) == pytest.approx(0.9 * 0.98 * 0.95)
    assert tug_of_war(three(0.5, 1.0, 0.85), retrained) == pytest.approx(0.9 * 0.99 * 0.95)
    assert tug_of_war(three(1.0, 1.0, 1.0), three(0.0, 1.0, 1.0)) == 0
    assert tug_of_war(three(None, None, None), retrained) is None
