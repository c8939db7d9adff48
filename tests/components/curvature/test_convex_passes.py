from __future__ import annotations

import pytest
import torch
from torch import nn

from oubli.components.curvature import convex_passes as module
from oubli.components.curvature.convex_passes import convex_passes
from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.errors import ConfigurationError
from oubli.components.model.gradients import objective_gradient
from oubli.components.model.losses import bce_with_logits, cross_entropy, mse
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Joined, Samples
from oubli.components.model.seeding import build_seeded

L2 = 1e-2


def samples(loss, n: int = 50) -> Samples:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(n, 4, generator=generator)
    if loss is cross_entropy:
        return Samples(inputs, torch.randint(0, 3, (n,), generator=generator))
    targets = torch.randn(n, 3, generator=generator)
    return Samples(inputs, targets if loss is mse else (targets > 0).float())


def check(objective: Objective, source: Samples | Joined) -> None:
    """Against general passes in float64."""
    theta = objective.theta() + 0.1 * torch.randn(
        objective.space.d, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    vector = torch.randn(objective.space.d, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    passes = convex_passes(objective, source)
    torch.testing.assert_close(
        passes.gradient(theta), objective_gradient(objective, theta, source), rtol=1e-12, atol=1e-14
    )
    exact = GaussNewton(Restriction(objective, theta, None), source).matvec(vector) + L2 * vector
    for scale in (1.0, 2.0**-100):
        torch.testing.assert_close(passes.product(scale * vector), scale * exact, rtol=1e-5, atol=scale * 1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", [cross_entropy, mse, bce_with_logits])
def test_a_linear_layer(monkeypatch, loss, bias):
    # Several chunks, the last one shorter.
    monkeypatch.setattr(module, "_CHUNK_BYTES", 4 * 8 * 16)
    check(Objective(build_seeded(lambda: nn.Linear(4, 3, bias=bias), 1), loss, L2), samples(loss))


def test_a_head_on_layers_that_are_not_trained():
    network = build_seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), 1)
    check(Objective(network, cross_entropy, L2, trained=("2",)), samples(cross_entropy))


def test_a_bias_that_is_not_trained():
    check(
        Objective(build_seeded(lambda: nn.Linear(4, 3), 1), cross_entropy, L2, trained=("weight",)),
        samples(cross_entropy),
    )


def test_samples_that_are_not_in_memory():
    objective = Objective(build_seeded(lambda: nn.Linear(4, 3), 1), cross_entropy, L2)
    check(objective, Joined((samples(cross_entropy, 20), samples(cross_entropy, 30))))


def test_no_samples():
    with pytest.raises(ConfigurationError, match=r"empty|no samples|at least one"):
        convex_passes(Objective(nn.Linear(4, 3), cross_entropy, L2), samples(cross_entropy, 0))
