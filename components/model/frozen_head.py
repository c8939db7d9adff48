"""A frozen backbone under a trained head: the backbone's features are computed once, and the head is all there is.

Axes: n samples, b samples of a batch, d trained parameters.

The commonest fine-tune trains the last layer alone. Its objective in the trained parameters is that of the head on the
backbone's outputs, which never change: a removal, or a retraining, then passes over features instead of images or
texts. Where the head is linear and the loss convex in its outputs, the objective is convex in its scope.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oubli.components.model.chunking import MEMORY_BUDGET_BYTES, first_sample, pass_chunk
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples, SampleSource

FEATURE_BYTES = 2 * 2**30
"""What the features may take in memory; more are computed anew at each pass."""

_TRANSPARENT = (nn.Flatten, nn.Identity, nn.Dropout)


@dataclass(frozen=True)
class FrozenHead:
    """The trained head of a model whose other parameters are frozen.

    Attributes:
        name: The head's qualified name.
        objective: Of the head on features; its theta is that of the whole objective, scalar for scalar.
        linear: Whether the head is one linear layer, so that the outputs are linear in the parameters.
    """

    name: str
    objective: Objective
    linear: bool
    _whole: Objective

    def features(self, source: SampleSource, *, budget_bytes: int = FEATURE_BYTES) -> SampleSource:
        """The source with the head's inputs in place of the model's.

        Args:
            source: The samples as the model takes them.
            budget_bytes: Up to which the features are held in memory, on the objective's device; beyond, they are
                computed at each pass.
        """
        mapped = _FeatureSource(self, source)
        if len(source) == 0:
            return source
        row = self._of(first_sample(self._whole, source))
        if row.nbytes * len(source) > budget_bytes:
            return mapped
        parts = list(mapped.batches(pass_chunk(self._whole, source, MEMORY_BUDGET_BYTES)))
        return Samples(torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts]))

    def _of(self, inputs: Tensor) -> Tensor:
        """The head's input for prepared model inputs (b, ...)."""
        return _calls_of(self._whole, self.name, inputs)[0][0]


@dataclass(frozen=True)
class _FeatureSource:
    """Features that are computed at each pass."""

    head: FrozenHead
    source: SampleSource

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, size: int) -> Iterator[Samples]:
        for batch in self.source.batches(size):
            prepared = self.head._whole.prepare(batch)
            yield Samples(self.head._of(prepared.inputs), prepared.labels)


def frozen_head(objective: Objective, source: SampleSource) -> FrozenHead | None:
    """The head that holds every trained parameter and gives the model's output; None where there is none.

    A head is called once, with one tensor whose first axis is the batch, and what it returns is what the model
    returns. A parameter tied to one of the backbone rules it out, since the backbone would move with it.

    Args:
        objective: The whole model and its loss.
        source: Whose first sample shows what the head is called with.

    Raises:
        ConfigurationError: The source is empty.
    """
    if len(objective.space.names) == len(dict(objective.module.named_parameters())):
        return None
    name = _common_module(objective.space.names)
    if not name or _is_tied(objective.module, name):
        return None
    if not _ends_model(objective, name, first_sample(objective, source)):
        return None
    head = objective.module.get_submodule(name)
    own = Objective(
        head,
        objective.loss,
        objective.l2,
        device=objective.device,
        dtype=objective.dtype,
        trained=tuple(parameter.removeprefix(f"{name}.") for parameter in objective.space.names),
    )
    return FrozenHead(name, own, _is_linear(head), objective)


def on_head(
    objective: Objective, source: SampleSource, *, budget_bytes: int = FEATURE_BYTES
) -> tuple[Objective, SampleSource]:
    """The head and its features where there is a frozen backbone, else the objective and the source themselves.

    Args:
        objective: The whole model and its loss.
        source: The samples as the model takes them.
        budget_bytes: Up to which features are held in memory.

    Raises:
        ConfigurationError: The source is empty.
    """
    head = frozen_head(objective, source)
    return (objective, source) if head is None else (head.objective, head.features(source, budget_bytes=budget_bytes))


def _common_module(names: tuple[str, ...]) -> str:
    """The innermost module that holds all the named parameters; empty where only the whole module does."""
    shared: list[str] = []
    for steps in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(steps)) > 1:
            break
        shared.append(steps[0])
    return ".".join(shared)


def _is_tied(module: nn.Module, name: str) -> bool:
    """Whether a parameter of the submodule `name` is one of the rest of the module, too."""
    inside = {id(parameter) for parameter in module.get_submodule(name).parameters()}
    outside = {
        id(parameter)
        for path, part in module.named_modules()
        if path != name and not path.startswith(f"{name}.")
        for parameter in part.parameters(recurse=False)
    }
    return bool(inside & outside)


def _ends_model(objective: Objective, name: str, inputs: Tensor) -> bool:
    """Whether the submodule is called once, with one tensor of a row per sample, and returns the model's output."""
    pair = torch.cat([inputs, inputs])
    calls = _calls_of(objective, name, pair)
    with torch.no_grad():
        outputs = objective.outputs({}, pair)
    return len(calls) == 1 and len(calls[0][0]) == len(pair) and torch.equal(calls[0][1], outputs)


def _calls_of(objective: Objective, name: str, inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Input and output of each call of the module `name` with one tensor, in a forward pass over prepared inputs."""
    calls: list[tuple[Tensor, Tensor]] = []

    def see(_module: nn.Module, arguments: tuple[object, ...], output: object) -> None:
        if len(arguments) == 1 and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
            calls.append((arguments[0], output))

    hook = objective.module.get_submodule(name).register_forward_hook(see)
    try:
        with torch.no_grad():
            objective.outputs({}, inputs)
    finally:
        hook.remove()
    return calls


def _is_linear(head: nn.Module) -> bool:
    """One Linear, alone or in a Sequential of layers that leave values as they are in evaluation mode."""
    if isinstance(head, nn.Linear):
        return True
    if not isinstance(head, nn.Sequential):
        return False
    changing = [layer for layer in head if not isinstance(layer, _TRANSPARENT)]
    return len(changing) == 1 and isinstance(changing[0], nn.Linear)
