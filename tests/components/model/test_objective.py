from __future__ import annotations

import pytest
import torch
from torch import nn

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.model.losses import Loss, cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples


def test_losses_are_those_of_the_module_in_evaluation_mode(network, images):
    network.train()
    objective = Objective(network, cross_entropy, 0.0, dtype=torch.float32)
    prepared = objective.prepare(images)
    losses = objective.losses(objective.theta(), prepared)
    assert network.training
    expected = cross_entropy(network.eval()(prepared.inputs), prepared.labels)
    torch.testing.assert_close(losses, expected.detach())


def test_the_callers_module_is_left_alone(network, images):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    objective = Objective(network, cross_entropy, 0.1)
    theta = objective.theta() * 3
    objective.losses(theta, objective.prepare(images))
    objective.space.write(theta, objective.module)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert network[0].weight.dtype == torch.float32


def test_labels_keep_their_integers(network_objective, images):
    prepared = network_objective.prepare(Samples(images.inputs.float(), images.labels))
    assert prepared.inputs.dtype == torch.float64
    assert prepared.labels.dtype == torch.int64


def test_kind(network_objective, network):
    assert network_objective.kind is Loss.CROSS_ENTROPY
    assert Objective(network, lambda outputs, labels: outputs[:, 0], 0.0).kind is None


def test_penalty(linear_objective):
    theta = linear_objective.theta()
    assert float(linear_objective.penalty(theta)) == pytest.approx(0.005 * float((theta**2).sum()))


@pytest.mark.parametrize("l2", [-1.0, float("nan"), float("inf")])
def test_l2_must_be_a_coefficient(l2):
    with pytest.raises(ConfigurationError, match="l2 is"):
        Objective(nn.Linear(1, 1), cross_entropy, l2)


def test_dtype_must_be_floating():
    with pytest.raises(ConfigurationError, match=r"torch\.int64"):
        Objective(nn.Linear(1, 1), cross_entropy, 0.0, dtype=torch.int64)


def test_reduced_losses_are_refused(linear_objective, classes):
    reduced = Objective(linear_objective.module, lambda outputs, labels: outputs.mean(), 0.0)
    with pytest.raises(ConfigurationError, match=r"shape \(\) for 40 samples"):
        reduced.losses(reduced.theta(), classes)


def test_outputs_that_are_no_tensor_are_refused(classes):
    class Pair(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs), inputs

    objective = Objective(Pair(4, 3), cross_entropy, 0.0)
    with pytest.raises(ConfigurationError, match="Pair returned tuple"):
        objective.losses(objective.theta(), classes)


def test_check_counts_weights_that_are_not_finite(linear_objective):
    theta = linear_objective.theta()
    linear_objective.check(theta)
    theta[[0, 3]] = torch.tensor([float("nan"), float("inf")], dtype=theta.dtype)
    with pytest.raises(NonFiniteInput, match="2 of 15 weights"):
        linear_objective.check(theta)
