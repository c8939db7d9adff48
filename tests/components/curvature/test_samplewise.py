"""Functions of one sample over a batch: the Hessians of losses, with vmap and without."""

from __future__ import annotations

import logging

import odd_losses
import pytest
import torch
from torch import Tensor, nn

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.samplewise import loss_hessians
from oubli.components.model.losses import LossFunction, cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples

LABELS = torch.arange(7) % 3


def outputs() -> Tensor:
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def objective(loss: LossFunction) -> Objective:
    torch.manual_seed(0)
    return Objective(nn.Linear(4, 3), loss, 0.1)


def test_the_hessian_of_cross_entropy_is_known() -> None:
    p = outputs().softmax(1)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(loss_hessians(objective(cross_entropy), torch.Size([3]))(outputs(), LABELS), expected)


def test_where_vmap_has_no_rule_each_sample_is_differentiated_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    quick = loss_hessians(objective(odd_losses.margin_by_index), torch.Size([3]))
    slow = loss_hessians(objective(odd_losses.margin), torch.Size([3]))
    expected = quick(outputs(), LABELS)
    with caplog.at_level(logging.INFO, logger="oubli"):
        torch.testing.assert_close(slow(outputs(), LABELS), expected)
    assert (quick.refused, slow.refused) == (False, True)
    (line,) = caplog.messages
    assert line.startswith("One sample at a time, which is slower: vmap")
    assert "\n" not in line


def test_a_linear_head_takes_a_loss_that_vmap_cannot_run() -> None:
    inputs = torch.randn(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dense = [
        GaussNewton(Restriction(each, each.theta(), None), Samples(inputs, LABELS)).dense()
        for each in (objective(odd_losses.margin), objective(odd_losses.margin_by_index))
    ]
    torch.testing.assert_close(*dense)
