from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from oubli.components.errors import ConfigurationError
from oubli.components.model.losses import Loss, correct_predictions, log_probabilities, loss_function, loss_kind


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss", "outputs", "labels", "reference"),
    [
        (Loss.CROSS_ENTROPY, rows(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), functional.cross_entropy),
        (Loss.CROSS_ENTROPY, rows(6, 4, 5), torch.arange(30).reshape(6, 5) % 4, functional.cross_entropy),
        (Loss.BCE_WITH_LOGITS, rows(6), torch.tensor([0, 1, 1, 0, 1, 0]), functional.binary_cross_entropy_with_logits),
        (Loss.BCE_WITH_LOGITS, rows(6, 2), rows(6, 2) > 0, functional.binary_cross_entropy_with_logits),
        (Loss.MSE, rows(6, 2), rows(6, 2) + 1, functional.mse_loss),
    ],
)
def test_mean_of_per_sample_losses_is_torchs_mean(loss, outputs, labels, reference):
    losses = loss_function(loss)(outputs, labels)
    assert losses.shape == (6,)
    expected = reference(outputs, labels if loss is Loss.CROSS_ENTROPY else labels.to(outputs.dtype))
    torch.testing.assert_close(losses.mean(), expected)


def test_flat_targets_do_not_broadcast_against_a_column():
    losses = loss_function(Loss.MSE)(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0]))
    assert losses.tolist() == [0.0, 4.0]


def test_targets_of_another_size_are_refused():
    with pytest.raises(ConfigurationError, match=r"\(2, 3\) but the labels \(2,\)"):
        loss_function(Loss.MSE)(torch.zeros(2, 3), torch.zeros(2))


def test_kind_names_own_functions_only():
    assert [loss_kind(loss_function(loss)) for loss in Loss] == list(Loss)
    assert loss_kind(lambda outputs, labels: outputs[:, 0] - labels) is None


def test_correct_predictions():
    logits = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    right = correct_predictions(Loss.CROSS_ENTROPY, logits, torch.tensor([1, 1]))
    assert right is not None
    assert right.tolist() == [1.0, 0.0]
    half = correct_predictions(Loss.BCE_WITH_LOGITS, torch.tensor([[1.0, -1.0]]), torch.tensor([[1, 1]]))
    assert half is not None
    assert half.tolist() == [0.5]
    assert correct_predictions(Loss.MSE, logits, logits) is None
    assert correct_predictions(None, logits, logits) is None


def test_predictive_distributions_sum_to_one():
    for loss in (Loss.CROSS_ENTROPY, Loss.BCE_WITH_LOGITS):
        logs = log_probabilities(loss, torch.tensor([[0.0, 50.0], [2.0, -1.0]]))
        assert logs is not None
        torch.testing.assert_close(logs.exp().sum(1), torch.ones_like(logs.exp().sum(1)))
    binary = log_probabilities(Loss.BCE_WITH_LOGITS, torch.zeros(1))
    assert binary is not None
    assert binary[0, 1].item() == pytest.approx(-math.log(2))
    assert log_probabilities(Loss.MSE, torch.zeros(1)) is None
