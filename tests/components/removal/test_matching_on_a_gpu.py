"""The same surrogate and the same matching on a GPU and on the CPU."""

from __future__ import annotations

import pytest
import torch

from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.model.state import output_table
from oubli.components.reference.models import cnn_batchnorm
from oubli.components.removal.descent import Optimiser
from oubli.components.removal.matching import MatchingData, MatchingPlan, match_targets
from oubli.components.removal.surrogate import SurrogatePlan, TrainingSettings, train_surrogate
from oubli.components.removal.targets import hardness

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_matching_on_a_gpu_agrees_with_the_cpu() -> None:
    random = torch.Generator().manual_seed(0)
    samples = Samples(torch.randn(60, 1, 8, 8, generator=random), torch.randint(0, 3, (60,), generator=random))
    removed, retained = samples.select(torch.arange(4)), samples.select(torch.arange(4, 60))
    module, fresh = (build_seeded(lambda: cnn_batchnorm(8, 8, 1, 3), seed) for seed in (0, 1))
    plan = SurrogatePlan(TrainingSettings(Optimiser.SGD, 0.01, 16, 5))
    found = {}
    for device in ("cpu", "cuda"):
        objective = Objective(module, cross_entropy, 1e-3, device=device)
        theta = objective.theta()
        state = train_surrogate(objective, theta, fresh, retained, plan, seed=0)
        assert state.theta.device.type == device
        surrogate = state.within(objective)
        teacher = output_table(objective, theta, retained)
        weights = hardness(
            cross_entropy, original=teacher, surrogate=output_table(surrogate, surrogate.theta(), retained)
        )
        targets = output_table(surrogate, surrogate.theta(), removed)
        data = MatchingData(removed, targets, retained, teacher, weights)
        matched = match_targets(objective, theta, data, MatchingPlan(steps=5), seed=0)
        assert matched.theta.device.type == device
        found[device] = (matched.theta.cpu(), matched.buffers["backbone.1.running_var"].cpu())
    for first, second in zip(found["cpu"], found["cuda"], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-8)
