"""The same removal on a GPU and on the CPU."""

from __future__ import annotations

import pytest
import torch

from oubli.components.blocks.blanket import BlanketPlan, select_blanket
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.reference.models import small_cnn
from oubli.components.removal.damping import Fixed
from oubli.components.removal.newton import NewtonPlan, newton_removal

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_removal_on_a_gpu_agrees_with_the_cpu() -> None:
    random = torch.Generator().manual_seed(0)
    samples = Samples(torch.randn(60, 1, 8, 8, generator=random), torch.randint(0, 3, (60,), generator=random))
    removed, retained = samples.select(torch.arange(4)), samples.select(torch.arange(4, 60))
    module = build_seeded(lambda: small_cnn(8, 8, 1, 3), 0)
    found = {}
    for device in ("cpu", "cuda"):
        objective = Objective(module, cross_entropy, 1e-3, device=device)
        theta = objective.theta()
        blanket = select_blanket(objective, theta, removed, BlanketPlan(perturbations=100), seed=0)
        update = newton_removal(
            objective,
            theta,
            retained,
            RemovedGradient.of(objective, theta, removed),
            NewtonPlan(1, Fixed(0.1), convex=False),
            block=blanket.indices,
        )
        assert update.theta.device.type == device
        found[device] = (blanket.indices, update.theta.cpu())
    assert torch.equal(found["cpu"][0], found["cuda"][0])
    torch.testing.assert_close(found["cpu"][1], found["cuda"][1], rtol=1e-8, atol=1e-10)
