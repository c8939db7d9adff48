from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oubli.components.errors import ConfigurationError
from oubli.components.model.restriction import Restriction


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(data=st.data())
def test_outputs_are_those_of_the_whole_vector_with_the_block_replaced(network_objective, images, data):
    theta = network_objective.theta()
    members = data.draw(st.sets(st.integers(0, len(theta) - 1), min_size=1))
    block = torch.tensor(sorted(members))
    restriction = Restriction(network_objective, theta, block)
    values = torch.linspace(-1, 1, len(block), dtype=theta.dtype)
    whole = theta.clone()
    whole[block] = values
    expected = network_objective.outputs(network_objective.space.unflatten(whole), images.inputs)
    torch.testing.assert_close(restriction.outputs(values, images.inputs), expected)
    assert torch.equal(restriction.values, theta[block])
    space = network_objective.space
    assert restriction.touched == tuple(name for name in space.names if members & set(space.range_of(name)))


def test_the_derivative_is_the_blocks_part_of_the_whole_one(network_objective, images):
    theta = network_objective.theta().requires_grad_(True)
    weighting = network_objective.outputs(network_objective.space.unflatten(theta), images.inputs).detach().sin()

    def weighted(outputs: torch.Tensor) -> torch.Tensor:
        return (outputs * weighting).sum()

    whole = network_objective.outputs(network_objective.space.unflatten(theta), images.inputs)
    (expected,) = torch.autograd.grad(weighted(whole), theta)
    for block in (None, torch.arange(0, len(theta), 3), torch.tensor([28, 40])):
        restriction = Restriction(network_objective, theta.detach(), block)
        values = restriction.values.clone().requires_grad_(True)
        (found,) = torch.autograd.grad(weighted(restriction.outputs(values, images.inputs)), values)
        torch.testing.assert_close(found, expected[restriction.indices], rtol=1e-10, atol=1e-12)


def test_no_block_means_all_parameters(network_objective):
    theta = network_objective.theta()
    restriction = Restriction(network_objective, theta, None)
    assert restriction.size == len(theta)
    assert restriction.touched == network_objective.space.names


@pytest.mark.parametrize(
    "block",
    [
        torch.tensor([], dtype=torch.int64),
        torch.tensor([1, 1]),
        torch.tensor([2, 1]),
        torch.tensor([-1, 1]),
        torch.tensor([0, 15]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([[0], [1]]),
    ],
)
def test_blocks_that_are_no_index_sets_are_refused(linear_objective, block):
    with pytest.raises(ConfigurationError, match="distinct int64 indices below 15"):
        Restriction(linear_objective, linear_objective.theta(), block)
