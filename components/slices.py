"""Slices: which parameters make one output unit of a layer.

Axes: p slices, d parameters.

A slice is one filter of a convolution, or one output feature of a linear layer (Mehta et al., CVPR 2022). Its
parameters are that output's row of the weight, and its bias.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oubli.components.parameters import ParameterSpace

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Slice:
    """Output unit `unit` of the module with the qualified name `module`."""

    module: str
    unit: int

    def __str__(self) -> str:
        return f"{self.module}[{self.unit}]"


@dataclass(frozen=True)
class SlicedLayer:
    """A layer that is cut into slices, with its parameters' names in the space (None: it has no bias)."""

    module: str
    units: int
    weight: str
    bias: str | None


@dataclass(frozen=True)
class SliceMap:
    """The layers of a module that are sliced.

    `layers` in `named_modules()` order. Normalisation layers, embeddings, recurrent cells, transposed convolutions
    and bare parameters are not sliced.
    """

    space: ParameterSpace
    layers: tuple[SlicedLayer, ...]

    @property
    def slices(self) -> tuple[Slice, ...]:
        """All p slices, layer by layer: the columns of an activation record."""
        return tuple(Slice(layer.module, unit) for layer in self.layers for unit in range(layer.units))

    @property
    def unsliced(self) -> tuple[str, ...]:
        """Names of the parameter tensors that belong to no slice."""
        covered = {name for layer in self.layers for name in (layer.weight, layer.bias)}
        return tuple(name for name in self.space.names if name not in covered)

    def only(self, modules: Iterable[str]) -> SliceMap:
        """The same map with the named layers alone."""
        kept = set(modules)
        return SliceMap(self.space, tuple(layer for layer in self.layers if layer.module in kept))

    def indices(self, chosen: Iterable[Slice]) -> Tensor:
        """Sorted flat parameter indices (int64) of the union of slices."""
        by_module = {layer.module: layer for layer in self.layers}
        parts = [torch.empty(0, dtype=torch.int64)]
        for one in chosen:
            layer = by_module[one.module]
            weight = self.space.range_of(layer.weight)
            row = len(weight) // layer.units
            start = weight.start + one.unit * row
            parts.append(torch.arange(start, start + row))
            if layer.bias is not None:
                parts.append(torch.tensor([self.space.range_of(layer.bias).start + one.unit]))
        union: Tensor = torch.unique(torch.cat(parts))
        return union


def find_slices(module: nn.Module) -> SliceMap:
    """The slices of every Linear and Conv1d/2d/3d in `module`."""
    # By identity, since a tied tensor is a parameter under its first name only, and a reparametrised weight
    # (weight norm) is no parameter at all.
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    layers = []
    for name, layer in module.named_modules():
        if not isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
            continue
        weight = names.get(id(layer.weight))
        if weight is not None:
            bias = None if layer.bias is None else names.get(id(layer.bias))
            layers.append(SlicedLayer(name, layer.weight.shape[0], weight, bias))
    return SliceMap(ParameterSpace.of(module), tuple(layers))
