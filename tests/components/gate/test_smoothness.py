from __future__ import annotations

import math

import pytest
import torch
from torch.autograd.functional import hessian
from torch.nn import functional

from oubli.components.errors import ConfigurationError
from oubli.components.gate.smoothness import softmax_regression_smoothness
from oubli.components.model.gradients import objective_gradient


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_no_slope_and_no_third_derivative_exceeds_the_constants(classes, bias):
    """Random weights and features within the bound, and the cases that reach it: both must be close, never above."""
    features, bound, random = 3, 1.5, torch.Generator().manual_seed(5)
    inputs = features + bias
    found = softmax_regression_smoothness(bound, l2=0.0, bias=bias, classes=classes)

    def loss(weights, x, y):
        scores = weights.view(classes, inputs) @ x
        if classes == 1:
            return functional.binary_cross_entropy_with_logits(scores[0], y.double())
        return functional.cross_entropy(scores[None], y[None])

    def curvature(weights, x, y):
        return hessian(lambda at: loss(at, x, y), weights)

    slopes, changes = [], []
    for _ in range(60):
        x = torch.randn(features, generator=random, dtype=torch.float64)
        x = x * bound / x.norm()
        x = torch.cat([x, torch.ones(1, dtype=torch.float64)]) if bias else x
        weights = torch.randn(classes * inputs, generator=random, dtype=torch.float64)
        weights = weights * 10 ** float(torch.empty(1).uniform_(-1, 1.5, generator=random))
        y = torch.randint(0, max(2, classes), (), generator=random)
        slopes.append(float(torch.func.grad(loss)(weights, x, y).norm()))
        # The worst direction is along x, for two classes against each other; the chance of finding it is small.
        direction = torch.zeros(classes, inputs, dtype=torch.float64)
        direction[0] = x / x.norm()
        if classes > 1:
            direction[1] = -direction[0]
        step = 1e-3 * direction.flatten() / direction.norm()
        # Scores that make p(1-p)(1-2p) largest, other classes far below.
        worst = torch.full((classes,), -30.0, dtype=torch.float64)
        worst[0] = math.log((3 + math.sqrt(3)) / (3 - math.sqrt(3)))
        if classes > 1:
            worst[1] = 0.0
        steep = (worst[:, None] * x[None] / x.square().sum()).flatten()
        for at in (weights, steep):
            change = curvature(at + step, x, y) - curvature(at - step, x, y)
            changes.append(float(torch.linalg.matrix_norm(change, 2) / (2 * step.norm())))
    assert 0.9 * found.lipschitz < max(slopes) <= found.lipschitz * (1 + 1e-9)
    assert 0.999 * found.hessian_lipschitz < max(changes) <= found.hessian_lipschitz * (1 + 1e-6)


def test_the_l2_term_doubles_the_slope_within_the_ball_of_minimisers(linear_objective, classes):
    loss_alone = softmax_regression_smoothness(2.0, l2=0.0, classes=3)
    both = softmax_regression_smoothness(2.0, l2=1e-2, classes=3)
    assert both.lipschitz == 2 * loss_alone.lipschitz
    assert both.hessian_lipschitz == loss_alone.hessian_lipschitz
    # At the edge of the ball ||w|| = L_loss / l2, the l2 term's slope is that of the loss.
    norm = float(classes.inputs.norm(dim=1).max())
    constants = softmax_regression_smoothness(norm, l2=linear_objective.l2, classes=3)
    edge = linear_objective.theta()
    edge = edge / edge.norm() * constants.lipschitz / 2 / linear_objective.l2
    for one in classes.batches(1):
        slope = float(objective_gradient(linear_objective, edge, one).norm())
        assert slope <= constants.lipschitz


@pytest.mark.parametrize("change", [{"feature_norm": -1.0}, {"l2": math.nan}, {"classes": 0}])
def test_constants_need_usable_bounds(change):
    arguments = {"feature_norm": 1.0, "l2": 0.1, "classes": 3, **change}
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        softmax_regression_smoothness(arguments.pop("feature_norm"), **arguments)
