from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from oubli.components.activations import record_activations, recordable
from oubli.components.losses import cross_entropy
from oubli.components.objective import Objective
from oubli.components.samples import Samples
from oubli.components.slices import find_slices


def hooks_of(objective: Objective) -> int:
    return sum(len(module._forward_hooks) for module in objective.module.modules())


class Sequences(nn.Module):
    """(b, T, 3) to (b, 2): a linear layer over tokens, a 1d convolution, and one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(3, 4)
        self.along = nn.Conv1d(4, 4, 2)
        self.twice = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.along(self.tokens(inputs).tanh().transpose(1, 2)).mean(2)
        return self.head(self.twice(self.twice(hidden).tanh()))


def test_convolutional_record_matches_one_pass_per_copy(network_objective, images):
    theta, slices = network_objective.theta(), find_slices(network_objective.module)
    assert recordable(network_objective, theta, slices, images.inputs[:1]) == slices
    activations, losses = [], []
    module = network_objective.module
    for inputs, label in zip(images.inputs, images.labels, strict=True):
        convolved = module[0](inputs[None])
        scores = module(inputs[None])
        activations.append(torch.cat([convolved.mean((0, 2, 3)), scores[0]]))
        losses.append(float(cross_entropy(scores, label[None])))
    for budget_bytes in (1, 2**20):
        record = record_activations(network_objective, theta, slices, images, budget_bytes=budget_bytes)
        assert record.activations.dtype == record.losses.dtype == np.float64
        np.testing.assert_allclose(record.activations, torch.stack(activations).numpy(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(record.losses, losses, rtol=1e-10)
    assert hooks_of(network_objective) == 0


def test_sequence_record_matches_one_pass_per_copy():
    objective = Objective(Sequences(), cross_entropy, 0.0)
    inputs = torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = Samples(inputs, torch.arange(7) % 2)
    slices = find_slices(objective.module)
    record = record_activations(objective, objective.theta(), slices, samples, budget_bytes=2000)
    module = objective.module
    expected = []
    for one in inputs:
        tokens = module.tokens(one[None])
        along = module.along(tokens.tanh().transpose(1, 2))
        first = module.twice(along.mean(2))
        second = module.twice(first.tanh())
        expected.append(
            torch.cat([tokens[0].mean(0), along[0].mean(1), (first[0] + second[0]) / 2, module.head(second)[0]])
        )
    np.testing.assert_allclose(record.activations, torch.stack(expected).numpy(), rtol=1e-10, atol=1e-12)


def test_the_record_follows_theta_not_the_modules_weights(network_objective, images):
    slices = find_slices(network_objective.module)
    theta = torch.zeros_like(network_objective.theta())
    record = record_activations(network_objective, theta, slices, images)
    assert not record.activations.any()
    np.testing.assert_allclose(record.losses, np.log(3))


def test_layers_whose_samples_cannot_be_told_apart_are_left_out():
    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.folded = nn.Linear(3, 3)
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
            self.unused = nn.Linear(2, 2)
            self.head = nn.Linear(3, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            tokens = self.folded(inputs.reshape(-1, 3)).reshape(inputs.shape)
            return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))

    objective = Objective(Folding(), cross_entropy, 0.0)
    slices = find_slices(objective.module)
    inputs = torch.ones(1, 4, 3, dtype=torch.float64)
    kept = recordable(objective, objective.theta(), slices, inputs)
    assert [layer.module for layer in slices.layers] == ["folded", "attention.out_proj", "unused", "head"]
    assert [layer.module for layer in kept.layers] == ["head"]
    assert "folded.weight" in kept.unsliced
    assert hooks_of(objective) == 0


def test_hooks_are_removed_when_the_pass_fails(network_objective, images):
    theta, slices = network_objective.theta(), find_slices(network_objective.module)
    with pytest.raises(IndexError, match="out of bounds"):
        record_activations(network_objective, theta, slices, Samples(images.inputs, images.labels + 10))
    assert hooks_of(network_objective) == 0
