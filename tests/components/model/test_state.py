from __future__ import annotations

import copy

import pytest
import scoped_network
import torch
from torch import nn

from oubli.components.errors import ConfigurationError
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.model.state import (
    ModelState,
    in_training_mode,
    moving_buffers,
    output_table,
    with_moving_statistics,
)


def scoped(*trained: str) -> Objective:
    return Objective(build_seeded(scoped_network.build, 1), cross_entropy, 1e-2, trained=trained or None)


def test_which_buffers_move():
    own = [f"backbone.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]
    assert list(moving_buffers(scoped())) == own
    assert list(moving_buffers(scoped("backbone"))) == own
    assert moving_buffers(scoped("head")) == ()


def test_a_state_is_put_into_a_copy(network_objective, images):
    state = ModelState.of(network_objective)
    moved = ModelState(state.theta + 1, {name: buffer + 2 for name, buffer in state.buffers.items()})
    other = moved.within(network_objective)
    assert torch.equal(other.theta(), moved.theta)
    assert torch.equal(other.module[1].running_mean, network_objective.module[1].running_mean + 2)
    assert torch.equal(network_objective.theta(), state.theta)
    with pytest.raises(ConfigurationError, match=r"no buffer '1\.running_mean' of shape"):
        ModelState(state.theta, {"1.running_mean": torch.zeros(7)}).within(network_objective)


def test_a_table_holds_the_outputs_in_evaluation_mode(network, network_objective, images):
    theta = network_objective.theta() + 0.1
    module = copy.deepcopy(network).double().eval()
    network_objective.space.write(theta, module)
    with torch.no_grad():
        torch.testing.assert_close(output_table(network_objective, theta, images), module(images.inputs))


def test_training_mode_spares_what_is_frozen():
    objective, inputs = scoped("head"), torch.randn(8, 6, dtype=torch.float64)
    before = copy.deepcopy(objective.module.state_dict())
    with in_training_mode(objective) as running:
        first, second = (running.outputs({}, inputs) for _ in range(2))
    assert torch.equal(first, second)  # the backbone's dropout is frozen with it
    assert torch.equal(running.module.backbone[1].running_mean, before["backbone.1.running_mean"])
    with in_training_mode(scoped()) as running:
        first, second = (running.outputs({}, inputs) for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(running.module.backbone[1].running_mean, before["backbone.1.running_mean"])
    assert not objective.module.training


def test_moving_statistics_leave_dropout_off_and_frozen_layers_alone():
    inputs = torch.randn(8, 6, dtype=torch.float64)
    running = with_moving_statistics(scoped())
    assert torch.equal(running.outputs({}, inputs), running.outputs({}, inputs))
    assert running.module.backbone[1].num_batches_tracked.item() == 2
    frozen = with_moving_statistics(scoped("head"))
    frozen.outputs({}, inputs)
    assert frozen.module.backbone[1].num_batches_tracked.item() == 0


def test_a_model_that_is_one_normalisation_moves():
    objective = Objective(nn.BatchNorm1d(3), cross_entropy, 0.0)
    running = with_moving_statistics(objective)
    running.outputs({}, torch.randn(5, 3, dtype=torch.float64))
    assert running.module.num_batches_tracked.item() == 1
    assert len(output_table(objective, objective.theta(), Samples(torch.zeros(4, 3), torch.zeros(4)))) == 4
