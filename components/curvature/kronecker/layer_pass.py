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
    """One call of a module: what was kept of its input, and its output, which the model's outputs depend on."""

    module: str
    kept: Tensor | None
    output: Tensor


@dataclass(frozen=True)
class LayerPass:
    """The model's outputs (b, ...) and the watched modules' uses, in order of their calls."""

    outputs: Tensor
    uses: tuple[Use, ...]

    def gradients(self, cotangent: Tensor, *, keep: bool) -> Sequence[Tensor]:
        """The derivative of <outputs, cotangent> in each use's output; `keep` where more are asked for after it."""
        found = torch.autograd.grad(
            self.outputs, [one.output for one in self.uses], cotangent, retain_graph=keep, allow_unused=True
        )
        return [
            torch.zeros_like(one.output) if gradient is None else gradient
            for one, gradient in zip(self.uses, found, strict=True)
        ]


def layer_pass(
    objective: Objective, parameters: Mapping[str, Tensor], inputs: Tensor, modules: Sequence[str], watch: Watcher
) -> LayerPass:
    """Run the model on prepared inputs (b, ...) with weights by name, watching the named modules.

    `watch` sees each input while it is still what the module saw: operations in place may overwrite it later.
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

    found = dict(objective.module.named_modules())
    hooks = [found[name].register_forward_hook(hook(name)) for name in modules]
    try:
        with torch.enable_grad():
            outputs = functional_call(objective.module, dict(parameters), (inputs,))
    finally:
        for one in hooks:
            one.remove()
    if not outputs.requires_grad:
        raise ConfigurationError(
            "The model's outputs depend on no layer of the block.",
            remedy="Leave out parameters that the model does not use.",
        )
    return LayerPass(outputs, tuple(uses))
