from __future__ import annotations

import pytest
import torch
from model_zoo import EVERY, problem
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm

from oubli.components.blocks.slices import Slice, SliceMap, find_slices
from oubli.components.errors import ConfigurationError
from oubli.components.model.parameters import ParameterSpace


def marked(module: nn.Module, chosen: list[Slice], slices: SliceMap | None = None) -> dict[str, Tensor]:
    """Parameters by name, True where the chosen slices are."""
    slices = slices or find_slices(module)
    mask = torch.zeros(slices.space.d)
    mask[slices.indices(chosen)] = 1
    return {name: value.bool() for name, value in slices.space.unflatten(mask).items()}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def units_first(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> Tensor:
    """A layer's outputs with one row for each of its units."""
    if isinstance(layer, (nn.Linear, nn.RMSNorm)):
        return outputs.flatten(0, -2).T
    if isinstance(layer, nn.LayerNorm):
        return outputs.flatten(1).T
    if isinstance(layer, nn.Embedding):
        return torch.stack([outputs[inputs == row].flatten() for row in range(layer.num_embeddings)])
    return outputs.transpose(0, 1).flatten(1)


LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), normal(3, 2, 5)),
    "linear without bias": (lambda: nn.Linear(5, 4, bias=False), normal(3, 5)),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3), normal(2, 2, 6)),
    "conv2d in groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), normal(2, 4, 4, 4)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (1, 2, 3)), normal(2, 2, 3, 3, 3)),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(3, 4, 2), normal(2, 3, 4)),
    "transposed conv2d in groups": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), normal(2, 4, 3, 3)),
    "transposed conv2d without bias": (lambda: nn.ConvTranspose2d(4, 4, 2, groups=4, bias=False), normal(2, 4, 3, 3)),
    "transposed conv3d": (lambda: nn.ConvTranspose3d(2, 3, (1, 2, 2)), normal(2, 2, 2, 2, 2)),
    "batchnorm1d": (lambda: nn.BatchNorm1d(4), normal(5, 4)),
    "batchnorm2d": (lambda: nn.BatchNorm2d(4), normal(2, 4, 3, 3)),
    "batchnorm3d": (lambda: nn.BatchNorm3d(3), normal(2, 3, 2, 2, 2)),
    "groupnorm": (lambda: nn.GroupNorm(2, 4), normal(2, 4, 3)),
    "instancenorm": (lambda: nn.InstanceNorm1d(3, affine=True), normal(2, 3, 4)),
    "layernorm": (lambda: nn.LayerNorm(5), normal(3, 5)),
    "layernorm of two axes": (lambda: nn.LayerNorm((2, 3), bias=False), normal(4, 2, 3)),
    "rmsnorm": (lambda: nn.RMSNorm(4), normal(3, 2, 4)),
}
LAYERS["embedding"] = (lambda: nn.Embedding(4, 3), torch.tensor([[0, 1], [2, 3], [3, 2], [1, 0]]))


@pytest.mark.parametrize("name", LAYERS)
def test_a_slice_holds_all_that_makes_its_unit_and_nothing_else(name):
    make, inputs = LAYERS[name]
    layer = make().double().eval().requires_grad_(False)
    slices = find_slices(layer)
    theta = normal(slices.space.d)
    assert slices.unsliced == ()

    def units(weights: Tensor) -> Tensor:
        return units_first(layer, inputs, functional_call(layer, slices.space.unflatten(weights), (inputs,)))

    before = units(theta)
    assert len(before) == len(slices.slices)
    seen = []
    for one in slices.slices:
        indices = slices.indices([one])
        seen.append(indices)
        moved = theta.clone()
        moved[indices] += normal(len(indices)).abs() + 0.1
        changed = (units(moved) != before).any(1)
        assert changed.nonzero().flatten().tolist() == [one.unit]
        rest = theta + 1
        rest[indices] = theta[indices]
        assert torch.equal(units(rest)[one.unit], before[one.unit])
        for index in indices:
            # Every single element counts, not only the slice as a whole.
            moved = theta.clone()
            moved[index] += 1
            assert not torch.equal(units(moved)[one.unit], before[one.unit])
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(slices.space.d))


@pytest.mark.parametrize("widths", [{}, {"kdim": 3, "vdim": 5}, {"bias": False}])
def test_attention_has_the_rows_of_its_projections(widths):
    module = nn.MultiheadAttention(4, 2, **widths)
    slices = find_slices(module)
    assert [(layer.module, layer.units) for layer in slices.layers] == [("", 12), ("out_proj", 4)]
    assert slices.unsliced == ()
    for unit in range(12):
        mask = marked(module, [Slice("", unit)])
        if "kdim" in widths:
            weight = mask.pop(("q_proj_weight", "k_proj_weight", "v_proj_weight")[unit // 4])
            assert weight[unit % 4].all()
            assert weight.sum() == weight.shape[1]
        else:
            weight = mask.pop("in_proj_weight")
            assert weight[unit].all()
            assert weight.sum() == 4
        if "bias" not in widths:
            assert mask.pop("in_proj_bias").nonzero().tolist() == [[unit]]
        assert not any(one.any() for one in mask.values())
    out = marked(module, [Slice("out_proj", 3)])
    assert out["out_proj.weight"].nonzero().tolist() == [[3, column] for column in range(4)]
    assert sum(int(one.sum()) for one in out.values()) == 4 + ("bias" not in widths)


def test_all_slices_cover_what_is_sliced_once(network):
    slices = find_slices(network)
    assert [str(one) for one in slices.slices] == [f"{name}[{unit}]" for name in "016" for unit in range(3)]
    assert slices.unsliced == ()
    union = slices.indices(slices.slices)
    assert torch.equal(union, torch.arange(slices.space.d))
    assert find_slices(network).only(["1"]).unsliced == ("0.weight", "0.bias", "6.weight", "6.bias")


def test_indices_of_nothing_and_of_repeats(network):
    slices = find_slices(network)
    assert slices.indices([]).shape == (0,)
    assert slices.indices([]).dtype == torch.int64
    assert torch.equal(slices.indices([Slice("0", 1)] * 2), slices.indices([Slice("0", 1)]))


@pytest.mark.parametrize("wrong", [Slice("0", 3), Slice("0", -1), Slice("2", 0)])
def test_slices_that_do_not_exist_are_refused(network, wrong):
    with pytest.raises(ConfigurationError, match=rf"no slice {wrong.module}\[{wrong.unit}\]"):
        find_slices(network).indices([wrong])


class Assorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(2, 2)
        self.bag = nn.EmbeddingBag(4, 2)
        self.reparametrised = weight_norm(nn.Linear(2, 2))
        self.plain = nn.Linear(2, 2)
        self.fixed = nn.LayerNorm(2, elementwise_affine=False)
        self.unfixed = nn.BatchNorm1d(2, affine=False)
        self.attention = nn.MultiheadAttention(2, 1, add_bias_kv=True)
        self.bare = nn.Parameter(torch.zeros(2))


def test_what_is_not_sliced_is_listed():
    slices = find_slices(Assorted())
    assert [layer.module for layer in slices.layers] == ["plain", "attention", "attention.out_proj"]
    assert set(slices.unsliced) == {
        "bare", "bag.weight", "reparametrised.bias",
        "reparametrised.parametrizations.weight.original0", "reparametrised.parametrizations.weight.original1",
        "cell.weight_ih_l0", "cell.weight_hh_l0", "cell.bias_ih_l0", "cell.bias_hh_l0",
        "attention.bias_k", "attention.bias_v",
    }  # fmt: skip


def test_tied_weights_share_their_indices():
    objective, _ = problem("tied")
    slices = find_slices(objective.module)
    row = slices.indices([Slice("words", 2)])
    both = slices.indices([Slice("decoder", 2)])
    assert set(row.tolist()) < set(both.tolist())
    assert len(both) == len(row) + 1  # the decoder's bias
    assert torch.equal(slices.indices([Slice("words", 2), Slice("decoder", 2)]), both)
    assert slices.unsliced == ()
    # Covered through either of the two.
    assert slices.only(["decoder", "mix"]).unsliced == ()
    assert slices.only(["words", "mix"]).unsliced == ("decoder.bias",)


def test_a_module_with_two_names_is_sliced_once():
    objective, _ = problem("twice")
    names = [layer.module for layer in find_slices(objective.module).layers]
    assert names == ["shared", "branches.right", "head"]


def test_slices_keep_to_what_was_trained():
    objective, _ = problem("images")
    space = ParameterSpace.of(objective.module, ["10", "0.bias", "3.weight"])
    slices = find_slices(objective.module, space)
    assert [layer.module for layer in slices.layers] == ["0", "3", "10"]
    assert slices.unsliced == ()
    bias = marked(objective.module, [Slice("0", 2)], slices)
    assert bias["0.bias"].nonzero().tolist() == [[2]]
    assert sum(int(one.sum()) for one in bias.values()) == 1
    assert torch.equal(slices.indices(slices.slices), torch.arange(space.d))
    assert find_slices(objective.module, ParameterSpace.of(objective.module, ["1.bias"])).unsliced == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_is_sliced_or_listed(name):
    objective, _ = problem(name)
    slices = find_slices(objective.module)
    mask = marked(objective.module, list(slices.slices))
    assert tuple(name for name, one in mask.items() if not one.any()) == slices.unsliced
    assert all(one.all() for name, one in mask.items() if name not in slices.unsliced)
    assert slices.unsliced == tuple(one for one in slices.space.names if ".cell." in one)
