"""One forward pass that keeps what layers saw, so that gradients in their outputs can be asked for.

Axes: b samples.

Gradients are taken in the layers' outputs, not in their weights: per-sample weight gradients, which are large, are
never made. Parameters need no gradient for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from oubli.components.errors import ConfigurationError
from oubli.components.model.objective import Objective

Watcher = Callable[[str, nn.Module, Tensor], Tensor | None]
"""(module's name, module, its input) -> what to keep of the input for later."""


@dataclass(frozen=True)
class Use:
    """One call of a module.

    Attributes:
        module: Its qualified name.
        kept: What was kept of its input.
        output: Its output, which the model's outputs depend on.
    """

    module: str
    kept: Tensor | None
    output: Tensor


@dataclass(frozen=True)
class LayerPass:
    """A forward pass, and what was watched in it.

    Attributes:
        outputs: (b, ...) of the model.
        uses: Of the watched modules, in the order of their calls.
    """

    outputs: Tensor
    uses: tuple[Use, ...]

    def gradients(self, cotangent: Tensor, *, keep: bool) -> Sequence[Tensor]:
        """The derivative of <outputs, cotangent> in each use's output.

        Args:
            cotangent: (b, ...), in the shape of the outputs.
            keep: Whether more are asked for after it.
        """
        gradients = torch.autograd.grad(
            self.outputs, [use.output for use in self.uses], cotangent, retain_graph=keep, allow_unused=True
        )
        return [
            torch.zeros_like(use.output) if gradient is None else gradient
            for use, gradient in zip(self.uses, gradients, strict=True)
        ]


def layer_pass(
    objective: Objective, parameters: Mapping[str, Tensor], inputs: Tensor, modules: Sequence[str], watch: Watcher
) -> LayerPass:
    """Run the model, watching some of its modules.

    Args:
        objective: The model and its loss.
        parameters: Weights by name.
        inputs: (b, ...), prepared.
        modules: Names of those to watch.
        watch: Sees each input while it is still what the module saw: operations in place may overwrite it later.

    Raises:
        ConfigurationError: The outputs depend on none of the modules.
    """
    uses: list[Use] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def see(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            uses.append(Use(name, watch(name, module, arguments[0].detach()), output))
            # A copy goes on: an operation in place on it must not change what the gradient is taken in.
            return output.clone()

        return see

    named = dict(objective.module.named_modules())
    hooks = [named[name].register_forward_hook(hook(name)) for name in modules]
    try:
        with torch.enable_grad():
            outputs = functional_call(objective.module, dict(parameters), (inputs,))
    finally:
        for handle in hooks:
            handle.remove()
    if not outputs.requires_grad:
        raise ConfigurationError(
            "The model's outputs depend on no layer of the block.",
            remedy="Leave out parameters that the model does not use.",
        )
    return LayerPass(outputs, tuple(uses))
