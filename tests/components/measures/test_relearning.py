from __future__ import annotations

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from oubli.components.errors import ConfigurationError
from oubli.components.measures.evaluation import evaluate
from oubli.components.measures.relearning import relearn


def test_it_is_adam_on_the_removed_samples_alone(network_objective, images):
    """Against a plain training loop on the module itself, with the same batches."""
    removed, rate = images.select(torch.arange(7)), 0.01
    found = relearn(
        network_objective,
        network_objective.theta(),
        removed,
        goal=0.0,
        learning_rate=rate,
        batch_size=3,
        max_epochs=4,
        seed=5,
    )
    weights = {name: value.detach().clone() for name, value in network_objective.module.named_parameters()}
    for value in weights.values():
        value.requires_grad_()
    optimiser = torch.optim.Adam(weights.values(), lr=rate)
    random = torch.Generator().manual_seed(5)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        outputs = functional_call(network_objective.module, weights, removed.inputs[chosen])
        return functional.cross_entropy(outputs, removed.labels[chosen])

    expected = [loss(torch.arange(7)).item()]
    for _ in range(4):
        for chosen in torch.randperm(7, generator=random).split(3):
            optimiser.zero_grad()
            loss(chosen).backward()
            optimiser.step()
        expected.append(loss(torch.arange(7)).item())
    assert found.losses == pytest.approx(expected)
    assert found.epochs is None
    assert found.steps == 12


def test_it_stops_at_the_first_epoch_within_the_goal(network_objective, images):
    theta = network_objective.theta()
    before = theta.clone()
    removed = images.select(torch.arange(6))
    start = evaluate(network_objective, theta, removed).loss
    assert relearn(network_objective, theta, removed, goal=start, seed=0).epochs == 0
    goal = 0.7 * start
    found = relearn(network_objective, theta, removed, goal=goal, learning_rate=0.02, seed=0)
    assert found.epochs == len(found.losses) - 1 > 1
    assert found.losses[-1] <= goal < min(found.losses[:-1])
    assert found.steps == found.epochs
    assert relearn(network_objective, theta, removed, goal=goal, learning_rate=0.02, seed=0) == found
    assert torch.equal(theta, before)
    farther = relearn(network_objective, theta, removed, goal=0.5 * start, learning_rate=0.02, seed=0)
    assert farther.epochs > found.epochs


@pytest.mark.parametrize("change", [{"learning_rate": 0.0}, {"batch_size": 0}, {"max_epochs": 0}])
def test_settings_must_be_positive(network_objective, images, change):
    with pytest.raises(ConfigurationError, match="all must be positive"):
        relearn(network_objective, network_objective.theta(), images, goal=0.1, seed=0, **change)


def test_nothing_cannot_be_relearnt(network_objective, images):
    nothing = images.select(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="0 samples"):
        relearn(network_objective, network_objective.theta(), nothing, goal=0.1, seed=0)
