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
    """A module's trained parameters by name, and the names of everything in its state dict that is frozen.

    A buffer is trained where it lies in a module that `trained` names.
    """

    trained: frozenset[str]
    frozen: tuple[str, ...]

    @classmethod
    def of(cls, module: nn.Module, trained: Sequence[str]) -> Scope:
        """ConfigurationError where a name of `trained` fits no parameter."""
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
        """Give `module` the frozen entries of `weights`, a whole state dict.

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
        hooks = [one.register_forward_pre_hook(_evaluating) for one in self._frozen_layers(module)]
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
        found = []
        for path, one in module.named_modules():
            prefix = f"{path}." if path else ""
            nothing_trained = not any(name.startswith(prefix) for name in self.trained)
            own = {f"{prefix}{name}" for name, _ in one.named_buffers(recurse=False)}
            if nothing_trained or own & frozen:
                found.append(one)
        return found


def _evaluating(module: nn.Module, _arguments: object) -> None:
    # The flag alone: `eval()` would also reach trained layers inside a module that has a frozen buffer of its own.
    module.training = False
