from __future__ import annotations

import pytest
import torch
from torch import nn

from oubli.components.errors import ConfigurationError
from oubli.components.model.parameters import ParameterSpace


def test_flat_order_is_that_of_named_parameters(network):
    space = ParameterSpace.of(network)
    theta = space.theta_of(network)
    assert space.d == sum(parameter.numel() for parameter in network.parameters()) == len(theta)
    for name, parameter in network.named_parameters():
        place = space.range_of(name)
        torch.testing.assert_close(theta[place.start : place.stop], parameter.detach().reshape(-1), rtol=0, atol=0)


def test_unflatten_undoes_flatten(network):
    space = ParameterSpace.of(network)
    tensors = space.unflatten(torch.arange(float(space.d)))
    assert {name: one.shape for name, one in tensors.items()} == {n: p.shape for n, p in network.named_parameters()}
    assert torch.equal(space.flatten({**tensors, "a buffer": torch.zeros(3)}), torch.arange(float(space.d)))


def test_write_rounds_into_the_modules_own_dtype():
    module = nn.Linear(2, 1)
    space = ParameterSpace.of(module)
    space.write(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), module)
    assert module.weight.dtype == torch.float32
    assert torch.equal(space.theta_of(module), torch.tensor([0.1, 0.2, 0.3]))


def test_theta_is_a_copy():
    module = nn.Linear(2, 1)
    space = ParameterSpace.of(module)
    theta = space.theta_of(module)
    before = theta.clone()
    with torch.no_grad():
        module.weight.add_(1)
    assert torch.equal(theta, before)


def test_tied_tensors_appear_once():
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    assert ParameterSpace.of(module).names == ("0.weight",)


def test_errors_name_the_parameter():
    space = ParameterSpace.of(nn.Linear(2, 1))
    with pytest.raises(ConfigurationError, match=r"No parameter is called 'wieght'.*weight, bias"):
        space.range_of("wieght")
    with pytest.raises(ConfigurationError, match=r"'weight': expected shape \(1, 2\), found \(2, 2\)"):
        space.flatten({"weight": torch.zeros(2, 2), "bias": torch.zeros(1)})
    with pytest.raises(ConfigurationError, match=r"'bias'.*found nothing"):
        space.flatten({"weight": torch.zeros(1, 2)})
    with pytest.raises(ConfigurationError, match=r"3 parameters, found shape \(4,\)"):
        space.unflatten(torch.zeros(4))


def test_modules_without_usable_parameters_are_refused():
    with pytest.raises(ConfigurationError, match="ReLU has no parameters"):
        ParameterSpace.of(nn.ReLU())
    integers = nn.Module()
    integers.register_parameter("codes", nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False))
    with pytest.raises(ConfigurationError, match=r"'codes' has dtype torch\.int64"):
        ParameterSpace.of(integers)
