"""Slices: which parameters make one output unit of a layer.

Axes: p slices, d trained parameters.

A slice is one filter of a convolution, or one output feature of a linear layer (Mehta et al., CVPR 2022), and likewise
one output unit of the other layers that `layers` knows. Its parameters are those of its unit that were trained.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from oubli.components.blocks.layers import Part, Reading, cuts
from oubli.components.errors import ConfigurationError
from oubli.components.model.parameters import ParameterSpace


@dataclass(frozen=True)
class Slice:
    """Output unit `unit` of the module with the qualified name `module`."""

    module: str
    unit: int

    def __str__(self) -> str:
        return f"{self.module}[{self.unit}]"


@dataclass(frozen=True)
class SlicedLayer:
    """A layer that is cut into slices.

    Attributes:
        module: its qualified name.
        units: how many it has.
        parts: where their parameters are, by the tensors' names in the space.
        watched: the module whose calls show what the units do.
        reading: how the activations of such a call are read.
        batch_axis: that of these calls.
        chosen: the units that are slices, in rising order; None for all.
    """

    module: str
    units: int
    parts: tuple[tuple[str, Part], ...]
    watched: str
    reading: Reading
    batch_axis: int = 0
    chosen: tuple[int, ...] | None = None


@dataclass(frozen=True)
class SliceMap:
    """The layers of a module that are sliced. Tied layers each have slices of their own, with the same parameters.

    Attributes:
        space: the d trained parameters.
        layers: in `named_modules()` order.
    """

    space: ParameterSpace
    layers: tuple[SlicedLayer, ...]

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """All p slices, layer by layer: the columns of an activation record."""
        return tuple(
            Slice(layer.module, unit)
            for layer in self.layers
            for unit in (range(layer.units) if layer.chosen is None else layer.chosen)
        )

    @property
    def unsliced(self) -> tuple[str, ...]:
        """Names of the parameter tensors that belong to no slice.

        Those of layers that `layers` does not know (recurrent cells), and parameters that a module holds itself.
        """
        covered = {name for layer in self.layers for name, _ in layer.parts}
        return tuple(name for name in self.space.names if name not in covered)

    def only(self, modules: Iterable[str]) -> SliceMap:
        """The same map with the named layers alone."""
        kept = set(modules)
        return SliceMap(self.space, tuple(layer for layer in self.layers if layer.module in kept))

    def indices(self, chosen: Iterable[Slice]) -> Tensor:
        """The parameters of a union of slices.

        Args:
            chosen: slices of this map.

        Returns:
            (d_P,) sorted flat parameter indices, int64 on the CPU.

        Raises:
            ConfigurationError: a slice is not in the map.
        """
        by_module = {layer.module: layer for layer in self.layers}
        wanted: dict[str, list[int]] = defaultdict(list)
        for unit_slice in chosen:
            layer = by_module.get(unit_slice.module)
            if layer is None or not 0 <= unit_slice.unit < layer.units:
                raise ConfigurationError(f"There is no slice {unit_slice}.", remedy="Choose among SliceMap.slices.")
            wanted[unit_slice.module].append(unit_slice.unit)
        # A byte for each parameter costs less than sorting the indices of many slices.
        held = torch.zeros(self.space.d, dtype=torch.bool)
        for module, units in wanted.items():
            for name, part in by_module[module].parts:
                held[self.space.range_of(name).start + _elements(part, torch.tensor(units))] = True
        return held.nonzero().flatten()


def find_slices(module: nn.Module, space: ParameterSpace | None = None) -> SliceMap:
    """The slices of every layer in `module` that can be cut, as far as their parameters are in `space`.

    A layer with a frozen weight and a trained bias has slices of the bias alone.

    Args:
        module: the network.
        space: the trained parameters (`Objective.space`); None for all of the module's.
    """
    space = ParameterSpace.of(module) if space is None else space
    # By identity, since a tied tensor is a parameter under its first name only, and a reparametrised weight
    # (weight norm) is no parameter at all.
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    trained = set(space.names)
    layers: dict[str, SlicedLayer] = {}
    for watched, layer in module.named_modules():
        if watched in layers:
            continue  # its parent has cut it
        for cut in cuts(layer):
            owner = layer.get_submodule(cut.child)
            named = [(names.get(id(getattr(owner, part.attribute))), part) for part in cut.parts]
            # A unit whose weight is made of others' parameters would be cut in half.
            known = [(name, part) for name, part in named if name is not None]
            parts = tuple((name, part) for name, part in known if name in trained)
            if parts and len(known) == len(named):
                name = ".".join(step for step in (watched, cut.child) if step)
                layers[name] = SlicedLayer(name, cut.units, parts, watched, cut.reading)
    return SliceMap(space, tuple(layers.values()))


def choose_units(layer: SlicedLayer, units: Iterable[int]) -> SlicedLayer:
    """The layer with slices for these units alone."""
    return replace(layer, chosen=tuple(sorted(set(units))))


def _elements(part: Part, units: Tensor) -> Tensor:
    """Positions in the part's tensor of the elements of the units that lie in it."""
    groups, rows, columns, length = part.shape
    inside = units - part.first
    inside = inside[(inside >= 0) & (inside < groups * columns)]
    starts = (inside // columns) * rows * columns * length + (inside % columns) * length
    offsets = torch.arange(rows)[:, None] * columns * length + torch.arange(length)
    return (starts[:, None] + offsets.flatten()).flatten()
