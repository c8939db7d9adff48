"""Losses and modules that treat each sample by itself pass; those that look at its batch are refused by name."""

from __future__ import annotations

from collections.abc import Callable

import odd_losses
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from oubli.components.errors import ConfigurationError
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.per_sample import require_per_sample
from oubli.components.model.samples import Samples

DTYPES = [torch.float32, torch.float64]


def samples(count: int = 12) -> Samples:
    return Samples(torch.randn(count, 5, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 3)


def check(loss: Callable[[Tensor, Tensor], Tensor], module: nn.Module | None = None, dtype=torch.float64) -> None:
    torch.manual_seed(0)
    objective = Objective(nn.Linear(5, 3) if module is None else module, loss, 0.0, dtype=dtype)
    require_per_sample(objective, objective.theta(), samples())


def share_of_the_batch(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels) / len(labels)


def centred(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs - outputs.mean(0), labels)


def as_many_classes_as_seen(outputs: Tensor, labels: Tensor) -> Tensor:
    return -(functional.log_softmax(outputs, 1) * functional.one_hot(labels)).sum(1)


def mean_if_alone(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels).squeeze()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", [cross_entropy, odd_losses.margin, odd_losses.margin_by_index, odd_losses.curves_down])
def test_a_loss_of_each_sample_passes(loss, dtype) -> None:
    check(loss, dtype=dtype)
    check(loss, nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (odd_losses.contrastive, "gives a sample another value in a batch than alone"),
        (share_of_the_batch, "gives a sample another value in a batch than alone"),
        (centred, "gives a sample another value in a batch than alone"),
        (as_many_classes_as_seen, "cannot take a single sample"),
        (mean_if_alone, r"returns shape \(\) for a single sample"),
    ],
)
def test_a_loss_of_the_batch_is_refused(loss, problem, dtype) -> None:
    with pytest.raises(ConfigurationError, match=f"The loss '{loss.__name__}' {problem}") as caught:
        check(loss, dtype=dtype)
    assert "compare with fixed class centres" in caught.value.remedy


def test_a_module_that_normalises_by_its_batch_is_refused() -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises((ConfigurationError, ValueError)):
        check(cross_entropy, module)


class MinusTheMean(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[:, :3] - inputs[:, :3].mean(0)


def test_a_module_that_looks_at_its_batch_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Sequential gives a sample other outputs in a batch than alone"):
        check(cross_entropy, nn.Sequential(nn.Linear(5, 5), MinusTheMean()))


def test_without_samples_there_is_nothing_to_check() -> None:
    objective = Objective(nn.Linear(5, 3), odd_losses.contrastive, 0.0)
    require_per_sample(objective, objective.theta(), samples(0))
