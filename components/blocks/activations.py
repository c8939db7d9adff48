"""What each slice does, and what the loss says, while one input is perturbed.

Axes: N perturbed copies, b copies of a chunk, p slices, m removed samples.

One forward pass over the copies of all samples (in chunks that fit in memory), with hooks on the sliced layers.
`layers` says what the activation of each kind of layer is; it is a mean over positions, padding included, since a layer
is not told which positions are padding. A layer that is called several times contributes the mean of its calls.

Losses are computed in float64 from the outputs: that of a memorised sample lies below what float32 can tell from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from oubli.components.blocks.layers import TOKEN_SHARES, Call
from oubli.components.blocks.perturbation import Perturbation, check_count
from oubli.components.blocks.slices import SlicedLayer, SliceMap, choose_units
from oubli.components.errors import ConfigurationError
from oubli.components.model.attention import differentiable_attention
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES, activation_bytes, samples_per_chunk
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples

See = Callable[[SlicedLayer, nn.Module, Call], None]

COPIES_AT_ONCE = 256
"""The most copies of one chunk on a CPU: with more, a small network's layers no longer meet in the cache."""


@dataclass(frozen=True)
class ActivationRecord:
    """What one input's perturbed copies did.

    Attributes:
        activations: (N, p) float64, columns in the order of `SliceMap.slices`.
        losses: (N,) float64.
    """

    activations: NDArray[np.float64]
    losses: NDArray[np.float64]


def recordable(objective: Objective, theta: Tensor, slices: SliceMap, inputs: Tensor) -> SliceMap:
    """The layers whose activations can be separated by sample, and the rows of embeddings that the inputs use.

    A layer is left out when the forward pass never calls it as a module, or when its calls have no axis of the length
    of the batch (tokens folded into it, a table of positions). That axis may be the second (sequence first).

    Args:
        objective: the module.
        theta: (d,) weights.
        slices: all that can be cut.
        inputs: (m, ...), prepared, of ALL removed samples. An embedding's rows are slices where one of these inputs
            holds their token: the samples' losses have no gradient in any other row, and a vocabulary is large.
    """
    axes: dict[str, list[frozenset[int]]] = {layer.module: [] for layer in slices.layers}
    # Only the batch axis follows both counts; a sequence, a width or a number of channels may equal one of them.
    for count in (2, 3):

        def look(sliced: SlicedLayer, layer: nn.Module, call: Call, count: int = count) -> None:
            axes[sliced.module].append(sliced.reading.batch_axes(layer, call, count))

        _run(objective, theta, slices, torch.cat([inputs[:1]] * count), look)
    kept = []
    for sliced in slices.layers:
        common = frozenset.intersection(*axes[sliced.module]) if axes[sliced.module] else frozenset()
        if len(common) == 1:
            kept.append(replace(sliced, batch_axis=min(common)))
    separable = SliceMap(slices.space, tuple(kept))
    tables = [layer.module for layer in kept if layer.reading is TOKEN_SHARES]
    if not tables:
        return separable
    used = _tokens_used(objective, theta, separable.only(tables), inputs)
    layers = (choose_units(layer, used[layer.module]) if layer.module in used else layer for layer in kept)
    return SliceMap(slices.space, tuple(layer for layer in layers if layer.chosen != ()))


def record_activations(
    objective: Objective,
    theta: Tensor,
    slices: SliceMap,
    copies: Samples,
    *,
    budget_bytes: int = MEMORY_BUDGET_BYTES,
) -> ActivationRecord:
    """The record of N copies in one batched pass.

    Args:
        objective: the module and its loss.
        theta: (d,) weights.
        slices: p slices, as `recordable` returns them.
        copies: N samples.
        budget_bytes: memory for one chunk of copies.
    """
    prepared = objective.prepare(copies)
    chunk = _chunk(objective, activation_bytes(objective, prepared.inputs[:1]), budget_bytes)
    return _record(objective, theta, slices, prepared.batches(chunk))


def record_perturbed(
    objective: Objective,
    theta: Tensor,
    slices: SliceMap,
    samples: Samples,
    perturbation: Perturbation,
    *,
    count: int,
    generators: Sequence[torch.Generator],
    budget_bytes: int = MEMORY_BUDGET_BYTES,
) -> list[ActivationRecord]:
    """The records of N perturbed copies of each of m samples, drawn as they are needed.

    Neither the budget nor the other samples change a sample's copies: they are those that one draw would give.

    Args:
        objective: the module and its loss.
        theta: (d,) weights.
        slices: p slices, as `recordable` returns them.
        samples: m samples.
        perturbation: how copies are drawn.
        count: N, at least 2.
        generators: m of the CPU, one for each sample.
        budget_bytes: memory for one chunk of copies.

    Returns:
        m records.

    Raises:
        ConfigurationError: fewer than 2 copies are asked for, there is another number of generators than of samples,
            or the perturbation does not suit them.
    """
    if len(generators) != len(samples):
        raise ConfigurationError(
            f"{len(samples)} samples and {len(generators)} generators were given.",
            remedy="Give each sample a generator of its own.",
        )
    check_count(count)
    prepared = objective.prepare(samples)
    first = prepared.inputs[:1]
    # Copies are drawn in float64, then moved to the objective's dtype.
    drawn = 2 * torch.float64.itemsize * first.numel()
    chunk = _chunk(objective, activation_bytes(objective, first) + drawn, budget_bytes)
    whole = _record(objective, theta, slices, _copies(prepared, perturbation, count, generators, chunk))
    return [
        ActivationRecord(whole.activations[start : start + count], whole.losses[start : start + count])
        for start in range(0, count * len(prepared), count)
    ]


def _copies(
    prepared: Samples, perturbation: Perturbation, count: int, generators: Sequence[torch.Generator], chunk: int
) -> Iterator[Samples]:
    """All samples' copies, one sample after another, in chunks that do not end with a sample."""
    total = count * len(prepared)
    for start in range(0, total, chunk):
        stop = min(start + chunk, total)
        drawn = []
        for sample in range(start // count, (stop - 1) // count + 1):
            length = min(stop, (sample + 1) * count) - max(start, sample * count)
            drawn.append(perturbation.copies(prepared.inputs[sample], count=length, generator=generators[sample]))
        owners = torch.arange(start, stop, device=prepared.labels.device) // count
        yield Samples(torch.cat(drawn), prepared.labels[owners])


def _chunk(objective: Objective, bytes_per_copy: int, budget_bytes: int) -> int:
    chunk = samples_per_chunk(bytes_per_copy, budget_bytes)
    return min(chunk, COPIES_AT_ONCE) if torch.device(objective.device).type == "cpu" else chunk


def _record(objective: Objective, theta: Tensor, slices: SliceMap, batches: Iterable[Samples]) -> ActivationRecord:
    calls: dict[str, list[Tensor]] = {layer.module: [] for layer in slices.layers}
    units = {
        layer.module: None if layer.chosen is None else torch.tensor(layer.chosen, device=theta.device)
        for layer in slices.layers
    }
    activations, losses = [], []

    def keep(sliced: SlicedLayer, layer: nn.Module, call: Call) -> None:
        calls[sliced.module].append(sliced.reading.read(layer, call, sliced.batch_axis, units[sliced.module]))

    for batch in batches:
        for seen in calls.values():
            seen.clear()
        outputs = _run(objective, theta, slices, batch.inputs, keep)
        labels = batch.labels.double() if batch.labels.is_floating_point() else batch.labels
        losses.append(objective.loss(outputs.double(), labels))
        activations.append(torch.cat([torch.stack(seen).mean(0) for seen in calls.values()], dim=1))
    return ActivationRecord(
        torch.cat(activations).to("cpu", torch.float64).numpy(),
        torch.cat(losses).to("cpu", torch.float64).numpy(),
    )


def _tokens_used(objective: Objective, theta: Tensor, tables: SliceMap, inputs: Tensor) -> dict[str, set[int]]:
    """The rows of each embedding that a pass over the inputs looks up; not the padding row, which is not trained."""
    used: dict[str, set[int]] = {layer.module: set() for layer in tables.layers}

    def look(sliced: SlicedLayer, layer: nn.Module, call: Call) -> None:
        for tokens in sliced.reading.tensors(layer, call):
            if isinstance(tokens, Tensor):
                used[sliced.module] |= set(tokens.flatten().tolist()) - {layer.padding_idx}

    chunk = samples_per_chunk(activation_bytes(objective, inputs[:1]))
    for start in range(0, len(inputs), chunk):
        _run(objective, theta, tables, inputs[start : start + chunk], look)
    return used


def _run(objective: Objective, theta: Tensor, slices: SliceMap, inputs: Tensor, see: See) -> Tensor:
    """The outputs (b, ...), with `see(sliced layer, its watched module, call)` called at each call."""
    # Convolutions run up to twice as fast in this layout, and so do means over positions.
    weights = {
        name: weight.to(memory_format=torch.channels_last) if weight.ndim == 4 else weight
        for name, weight in objective.space.unflatten(theta).items()
    }
    with _watching(objective.module, slices, see), differentiable_attention(), torch.no_grad():
        return objective.outputs(weights, inputs)


@contextmanager
def _watching(module: nn.Module, slices: SliceMap, see: See) -> Iterator[None]:
    """Hooks that call `see`; they go whatever happens."""

    def hook_for(sliced: SlicedLayer) -> Callable[..., None]:
        def hook(layer: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object], output: object) -> None:
            see(sliced, layer, Call(arguments, keywords, output))

        return hook

    with ExitStack() as hooks:
        for sliced in slices.layers:
            watched = module.get_submodule(sliced.watched)
            hooks.callback(watched.register_forward_hook(hook_for(sliced), with_kwargs=True).remove)
        yield
