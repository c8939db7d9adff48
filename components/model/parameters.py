"""The flat view of a module's trained parameters.

Axes: d trained parameters (scalars), d_P of them in a block P.

A parameter tensor's identity is its qualified name, as `named_parameters()` gives it (tied tensors appear once, under
their first name); a scalar's identity is that name and its index, or its position in the flat vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor, nn

from oubli.components.errors import ConfigurationError


@dataclass(frozen=True)
class ParameterSpace:
    """A module's trained parameter tensors, in `named_parameters()` order.

    Attributes:
        names: Qualified names.
        shapes: Of the tensors.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, module: nn.Module, trained: Sequence[str] | None = None) -> ParameterSpace:
        """The space of a module, or of the part of it that was trained.

        Args:
            module: The model.
            trained: Qualified names of parameters, or of modules whose parameters all count; None means every
                parameter.

        Raises:
            ConfigurationError: Nothing is left, a name fits nothing, or a parameter is complex or an integer.
        """
        named = dict(module.named_parameters())
        if not named:
            raise ConfigurationError(
                f"{type(module).__name__} has no parameters.", remedy="Pass the module that was trained."
            )
        if trained is not None:
            named = _within(module, named, trained)
        for name, parameter in named.items():
            if not parameter.is_floating_point():
                raise ConfigurationError(
                    f"Parameter {name!r} has dtype {parameter.dtype}; floating point is needed.",
                    remedy="Register what is not trained as a buffer, or convert it.",
                )
        return cls(tuple(named), tuple(parameter.shape for parameter in named.values()))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each tensor starts in the flat vector; one more entry than names, the last is d."""
        return (0, *accumulate(shape.numel() for shape in self.shapes))

    @property
    def d(self) -> int:
        """Number of scalar parameters."""
        return self.offsets[-1]

    def range_of(self, name: str) -> range:
        """Flat positions of the tensor `name`.

        Raises:
            ConfigurationError: No trained parameter is called so.
        """
        try:
            position = self.names.index(name)
        except ValueError:
            raise ConfigurationError(
                f"No parameter is called {name!r}.", remedy=f"The names are: {', '.join(self.names)}."
            ) from None
        return range(self.offsets[position], self.offsets[position + 1])

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """One flat vector.

        Args:
            tensors: By name, each in its shape; other names in the mapping (buffers) are left alone.

        Returns:
            (d,).

        Raises:
            ConfigurationError: A tensor is missing or has another shape.
        """
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in tensors or tensors[name].shape != shape:
                given = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ConfigurationError(
                    f"Parameter {name!r}: expected shape {tuple(shape)}, found {given}.",
                    remedy="Pass the weights of the same architecture.",
                )
        return torch.cat([tensors[name].reshape(-1) for name in self.names])

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Views of a flat vector by name, each in its shape; differentiable.

        Args:
            theta: (d,).

        Raises:
            ConfigurationError: theta has another shape.
        """
        if theta.shape != (self.d,):
            raise ConfigurationError(
                f"Expected a flat vector of {self.d} parameters, found shape {tuple(theta.shape)}.",
                remedy="Flatten the weights with this ParameterSpace.",
            )
        # Split once: the backward pass of a slice would make d zeros for each tensor.
        parts = torch.split(theta, [shape.numel() for shape in self.shapes])
        return {name: part.view(shape) for name, shape, part in zip(self.names, self.shapes, parts, strict=True)}

    def theta_of(self, module: nn.Module) -> Tensor:
        """A copy of the module's weights as one (d,) vector, detached, in the module's dtype and device."""
        return self.flatten({name: value.detach() for name, value in module.named_parameters()}).clone()

    def write(self, theta: Tensor, module: nn.Module) -> None:
        """Copy a flat vector into a module's parameters, rounding to their dtype.

        Args:
            theta: (d,).
            module: Changed in place.

        Raises:
            ConfigurationError: theta has another shape.
        """
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            for name, value in self.unflatten(theta).items():
                parameters[name].copy_(value)


def _within(module: nn.Module, named: Mapping[str, nn.Parameter], trained: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters that are, or lie in, what `trained` names; a tied one under any of its names."""
    aliases = dict(module.named_parameters(remove_duplicate=False))
    for scope in trained:
        if not any(_lies_in(name, scope) for name in aliases):
            raise ConfigurationError(
                f"No parameter is called {scope!r}, nor lies in a module of that name.",
                remedy=f"The names are: {', '.join(aliases)}.",
            )
    chosen = {id(value) for name, value in aliases.items() if any(_lies_in(name, scope) for scope in trained)}
    within = {name: value for name, value in named.items() if id(value) in chosen}
    if not within:
        raise ConfigurationError("No parameter was trained.", remedy="Name at least one, or leave the names out.")
    return within


def _lies_in(name: str, scope: str) -> bool:
    return name == scope or name.startswith(f"{scope}.")
