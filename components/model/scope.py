"""The scope of a training: what moves, and what is frozen.

A frozen backbone must come out of a training bit for bit as it went in: its parameters, and its buffers too, such as
the running statistics of batch normalisation, which training mode would move without any gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oubli.components.errors import ConfigurationError
from oubli.components.model.parameters import ParameterSpace


@dataclass(frozen=True)
class Scope:
    """What of a module's state dict is trained, and what is frozen.

    Attributes:
        trained: Names of the trained parameters.
        frozen: Names of the rest of the state dict. A buffer counts as trained where it lies in a module that was named
            as trained.
    """

    trained: frozenset[str]
    frozen: tuple[str, ...]

    @classmethod
    def of(cls, module: nn.Module, trained: Sequence[str]) -> Scope:
        """The scope of a training.

        Args:
            module: The model.
            trained: Names of the parameters, or of the modules, that are trained.

        Raises:
            ConfigurationError: A name fits no parameter.
        """
        parameters = frozenset(ParameterSpace.of(module, trained).names)
        # A tied tensor has several names in a state dict; it is frozen under none, or under all.
        moving = {value.data_ptr() for name, value in module.named_parameters() if name in parameters}
        frozen = []
        for name, value in module.state_dict().items():
            inside = any(name == scope or name.startswith(f"{scope}.") for scope in trained)
            if not inside and value.data_ptr() not in moving:
                frozen.append(name)
        return cls(parameters, tuple(frozen))

    def frozen_state(self, module: nn.Module) -> dict[str, Tensor]:
        """Copies of the frozen entries of a module's state dict."""
        state = module.state_dict()
        return {name: state[name].detach().cpu().clone() for name in self.frozen}

    def copy_frozen(self, weights: Mapping[str, Tensor], module: nn.Module) -> None:
        """Give a module the frozen entries of other weights.

        Args:
            weights: A whole state dict.
            module: Changed in place.

        Raises:
            ConfigurationError: An entry is missing or has another shape.
        """
        state = module.state_dict()
        wrong = [name for name in self.frozen if name not in weights or weights[name].shape != state[name].shape]
        if wrong:
            raise ConfigurationError(
                f"The registered weights lack frozen entries that the factory builds: {', '.join(wrong)}.",
                remedy="Correct the factory or its arguments in the training record.",
            )
        with torch.no_grad():
            for name in self.frozen:
                state[name].copy_(weights[name])

    @contextmanager
    def held(self, module: nn.Module) -> Iterator[None]:
        """While the body runs, frozen parameters take no gradient and frozen layers stay in evaluation mode.

        A trainer calls `module.train()`; layers that are frozen are put back before each of their forward passes.
        """
        requiring = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in self.trained)
        hooks = [layer.register_forward_pre_hook(_evaluating) for layer in self._frozen_layers(module)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for parameter in requiring:
                parameter.requires_grad_(True)

    def _frozen_layers(self, module: nn.Module) -> list[nn.Module]:
        """Modules in which nothing is trained, and those with a frozen buffer of their own."""
        frozen = frozenset(self.frozen)
        layers = []
        for path, layer in module.named_modules():
            prefix = f"{path}." if path else ""
            nothing_trained = not any(name.startswith(prefix) for name in self.trained)
            own = {f"{prefix}{name}" for name, _ in layer.named_buffers(recurse=False)}
            if nothing_trained or own & frozen:
                layers.append(layer)
        return layers


def _evaluating(module: nn.Module, _arguments: object) -> None:
    """A hook that puts a layer into evaluation mode."""
    # The flag alone: `eval()` would also reach trained layers inside a module that has a frozen buffer of its own.
    module.training = False
