"""Which parameters a Kronecker factorisation covers, and which only a diagonal does.

Axes: C outputs of a layer, I inputs of one output (I + 1 with the bias), d_P parameters of the block.

Kronecker layers are Linear and Conv1d/2d (undivided into groups), and Conv3d without dilation, whose own `forward` is
called and whose weight no other module uses. Normalisation affines, embeddings, recurrent cells, transposed or grouped
convolutions, attention's packed projections, tied weights and bare parameters get a diagonal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oubli.components.errors import ConfigurationError
from oubli.components.model.attention import differentiable_attention
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction


@dataclass(frozen=True)
class KroneckerLayer:
    """A layer that has Kronecker factors.

    Attributes:
        module: Its qualified name.
        weight: The weight's name.
        bias: The bias's name; None where there is none, or it is not trained.
        outputs: C.
        inputs: I.
        positions: How often one sample passes through it, over positions and repeated use.
    """

    module: str
    weight: str
    bias: str | None
    outputs: int
    inputs: int
    positions: int

    @property
    def columns(self) -> int:
        """I, and one more for the bias."""
        return self.inputs + (self.bias is not None)


@dataclass(frozen=True)
class Coverage:
    """How a model's trained parameters are covered.

    Attributes:
        layers: Those with Kronecker factors.
        diagonal: Names of the trained tensors that lie in none of them.
        called: Names of all modules that are called.
    """

    layers: tuple[KroneckerLayer, ...]
    diagonal: tuple[str, ...]
    called: tuple[str, ...]

    def only(self, names: tuple[str, ...]) -> Coverage:
        """The part that has to do with the named tensors."""
        layers = tuple(layer for layer in self.layers if layer.weight in names or layer.bias in names)
        return Coverage(layers, tuple(name for name in self.diagonal if name in names), self.called)


@dataclass(frozen=True)
class BlockLayer:
    """A layer's part in a block.

    Attributes:
        layer: The layer.
        units: (C_P,) int64, its output units that are in the block.
        places: (C_P, columns) int64, where in the block their parameters are.
    """

    layer: KroneckerLayer
    units: Tensor
    places: Tensor


@dataclass(frozen=True)
class BlockCoverage:
    """A block as output units of layers, and single parameters of other tensors.

    Attributes:
        layers: The layers' parts in the block.
        diagonal: The other tensors' names.
        places: (k,) int64, where in the block their elements are, tensor by tensor.
        within: By name of those tensors, which of its elements the block holds.
        coverage: The layers and tensors that the block touches, whole.
    """

    layers: tuple[BlockLayer, ...]
    diagonal: tuple[str, ...]
    places: Tensor
    within: Mapping[str, Tensor]
    coverage: Coverage


def find_coverage(objective: Objective, inputs: Tensor) -> Coverage:
    """What of the trained parameters is Kronecker and what diagonal.

    Args:
        objective: The model and its loss.
        inputs: (1, ...), prepared; run through once.
    """
    trained = set(objective.space.names)
    names = {id(parameter): name for name, parameter in objective.module.named_parameters()}
    users: Counter[int] = Counter()
    for _, module in objective.module.named_modules():
        users.update(id(parameter) for parameter in module._parameters.values() if parameter is not None)
    positions = _positions(objective, inputs)
    layers = []
    for name, module in objective.module.named_modules():
        if name not in positions or not _is_kronecker(module):
            continue
        parameters = [parameter for parameter in (module.weight, module.bias) if parameter is not None]
        weight = names.get(id(module.weight))
        if weight is None or weight not in trained or any(users[id(parameter)] > 1 for parameter in parameters):
            continue
        bias = None if module.bias is None else names.get(id(module.bias))
        layers.append(
            KroneckerLayer(
                name,
                weight,
                bias if bias in trained else None,
                module.weight.shape[0],
                module.weight[0].numel(),
                positions[name],
            )
        )
    covered = {name for layer in layers for name in (layer.weight, layer.bias)}
    diagonal = tuple(name for name in objective.space.names if name not in covered)
    return Coverage(tuple(layers), diagonal, tuple(positions))


def block_coverage(restriction: Restriction, coverage: Coverage) -> BlockCoverage:
    """A block's part of the coverage; output units are taken whole: a row of the weight, with its bias.

    Args:
        restriction: The block.
        coverage: Of all trained parameters.

    Raises:
        ConfigurationError: The block cuts through an output unit: no Kronecker product is left then.
    """
    space, indices = restriction.objective.space, restriction.indices
    touched_part = coverage.only(restriction.touched)
    layers = []
    for layer in touched_part.layers:
        start = space.range_of(layer.weight).start
        table = torch.arange(layer.outputs * layer.inputs, device=indices.device).reshape(layer.outputs, -1) + start
        if layer.bias is not None:
            biases = torch.arange(layer.outputs, device=indices.device) + space.range_of(layer.bias).start
            table = torch.cat([table, biases[:, None]], dim=1)
        inside = torch.isin(table, indices)
        whole, touched = inside.all(1), inside.any(1)
        if bool((whole != touched).any()):
            raise ConfigurationError(
                f"The block cuts through output units of the layer {layer.module!r}.",
                remedy="Kronecker curvature needs whole output units, each with its bias; or use the curvature ggn.",
            )
        units = torch.nonzero(whole)[:, 0]
        layers.append(BlockLayer(layer, units, torch.searchsorted(indices, table[units])))
    within: dict[str, Tensor] = {}
    places = [indices.new_empty(0)]
    for name in touched_part.diagonal:
        reach = space.range_of(name)
        low, high = torch.searchsorted(indices, torch.tensor([reach.start, reach.stop], device=indices.device)).tolist()
        within[name] = indices[low:high] - reach.start
        places.append(torch.arange(low, high, device=indices.device))
    return BlockCoverage(tuple(layers), touched_part.diagonal, torch.cat(places), within, touched_part)


def _is_kronecker(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv3d):
        return module.groups == 1 and all(step == 1 for step in module.dilation)
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return module.groups == 1
    return isinstance(module, nn.Linear)


def _positions(objective: Objective, inputs: Tensor) -> dict[str, int]:
    """By name of each module that is called and returns a tensor: how many output vectors one sample makes in it."""
    positions: Counter[str] = Counter()

    def watch(name: str) -> Callable[[nn.Module, object, object], None]:
        def count(module: nn.Module, _arguments: object, output: object) -> None:
            if isinstance(output, Tensor):
                weight = module.weight if _is_kronecker(module) else None
                positions[name] += output.numel() // len(weight) if isinstance(weight, Tensor) else 1

        return count

    hooks = [module.register_forward_hook(watch(name)) for name, module in objective.module.named_modules()]
    try:
        with differentiable_attention(), torch.no_grad():
            objective.outputs({}, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return dict(positions)
