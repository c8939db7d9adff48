from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from oubli.components.slices import Slice, find_slices


def marked(module: nn.Module, chosen: list[Slice]) -> dict[str, torch.Tensor]:
    """Parameters by name, True where the chosen slices are."""
    slices = find_slices(module)
    mask = torch.zeros(slices.space.d)
    mask[slices.indices(chosen)] = 1
    return {name: value.bool() for name, value in slices.space.unflatten(mask).items()}


@pytest.mark.parametrize(
    "layer", [nn.Linear(5, 4), nn.Conv1d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv3d(2, 4, (1, 2, 3))]
)
def test_a_slice_is_one_row_of_the_weight_and_its_bias(layer):
    module = nn.Sequential(nn.Linear(2, 2), layer)
    mask = marked(module, [Slice("1", 2)])
    assert mask["1.weight"][2].all()
    assert mask["1.bias"][2]
    assert sum(int(one.sum()) for one in mask.values()) == layer.weight[0].numel() + 1


def test_all_slices_cover_what_is_sliced_once(network):
    slices = find_slices(network)
    assert [str(one) for one in slices.slices] == ["0[0]", "0[1]", "0[2]", "6[0]", "6[1]", "6[2]"]
    assert slices.unsliced == ("1.weight", "1.bias")
    sizes = [len(slices.indices([one])) for one in slices.slices]
    union = slices.indices(slices.slices)
    assert len(union) == sum(sizes) == slices.space.d - 6
    assert bool((union[1:] > union[:-1]).all())


def test_indices_of_nothing_and_of_repeats(network):
    slices = find_slices(network)
    assert slices.indices([]).shape == (0,)
    assert slices.indices([]).dtype == torch.int64
    assert torch.equal(slices.indices([Slice("0", 1)] * 2), slices.indices([Slice("0", 1)]))


def test_layers_without_bias():
    assert marked(nn.Sequential(nn.Linear(3, 2, bias=False)), [Slice("0", 0)])["0.weight"].tolist() == [
        [True] * 3,
        [False] * 3,
    ]


def test_what_is_not_sliced_is_listed():
    module = nn.ModuleDict(
        {
            "up": nn.ConvTranspose2d(2, 2, 2),
            "words": nn.Embedding(4, 2),
            "reparametrised": weight_norm(nn.Linear(2, 2)),
            "plain": nn.Linear(2, 2),
        }
    )
    slices = find_slices(module)
    assert [layer.module for layer in slices.layers] == ["plain"]
    assert {name.split(".")[0] for name in slices.unsliced} == {"up", "words", "reparametrised"}


def test_tied_weights_share_their_indices():
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight = module[0].weight
    slices = find_slices(module)
    assert torch.equal(slices.indices([Slice("0", 1)]), slices.indices([Slice("1", 1)]))
