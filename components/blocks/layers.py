"""How each kind of layer is cut into output units: whose parameters they are, and what they did in a call.

Axes: u units of a layer, b samples of a batch, T positions (tokens, pixels) of a sample, V rows of an embedding.

| layer | unit | its parameters | its activation, a mean over positions |
|---|---|---|---|
| Linear | output feature | row of the weight, bias | output feature |
| Conv1d/2d/3d | filter | filter, bias | output channel |
| ConvTranspose1d/2d/3d | output channel | weight[ins of its group, channel of the group], bias | output channel |
| BatchNorm, GroupNorm, InstanceNorm (affine) | channel | weight and bias of the channel | output channel |
| LayerNorm, RMSNorm (affine) | normalised element | its weight and bias | output element |
| Embedding | row | the row | share of positions that hold the row's token, times the row's norm |
| MultiheadAttention | feature of the projected queries, keys, values | its row, its bias | projected feature |
| MultiheadAttention's `out_proj` | output feature | row of the weight, bias | output feature of the attention |

An embedding's row has no output of its own in a sample that lacks its token, so its activation is what it adds to the
layer's mean output, in norm. To slice a further layer, write how it is cut and how it is read, and add it to CUTTERS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm


@dataclass(frozen=True)
class Call:
    """One call of a layer, as a forward hook sees it."""

    arguments: tuple[object, ...]
    keywords: Mapping[str, object]
    output: object

    def argument(self, place: int, name: str) -> object:
        """The argument by position or by keyword; None where it was not given."""
        return self.arguments[place] if place < len(self.arguments) else self.keywords.get(name)


@dataclass(frozen=True)
class Reading:
    """How the activations of one call are read.

    Attributes:
        tensors: of a layer and a call, the tensors that hold the samples.
        trailing: of a layer, how many of their last axes cannot be the batch; None where the batch can only be the
            first axis.
        means: of a layer, its tensors, the batch axis and units, the (b, u) activations of these units; None for all.
    """

    tensors: Callable[[nn.Module, Call], tuple[object, ...]]
    trailing: Callable[[nn.Module], int | None]
    means: Callable[[nn.Module, tuple[Tensor, ...], int, Tensor | None], Tensor]

    def batch_axes(self, layer: nn.Module, call: Call, count: int) -> frozenset[int]:
        """The axes that may be the batch axis in a call on `count` samples."""
        trailing = self.trailing(layer)
        axes: list[frozenset[int]] = []
        for tensor in self.tensors(layer, call):
            if not isinstance(tensor, Tensor):
                return frozenset()
            last = 1 if trailing is None else tensor.ndim - trailing
            axes.append(frozenset(axis for axis in range(min(last, tensor.ndim)) if tensor.shape[axis] == count))
        return frozenset.intersection(*axes)

    def read(self, layer: nn.Module, call: Call, batch_axis: int, units: Tensor | None) -> Tensor:
        """(b, u) activations of a call whose batch axis is known."""
        tensors = tuple(tensor for tensor in self.tensors(layer, call) if isinstance(tensor, Tensor))
        return self.means(layer, tensors, batch_axis, units)


@dataclass(frozen=True)
class Part:
    """The share of a layer's units in one parameter tensor.

    Attributes:
        attribute: the tensor's name in the layer.
        first: the first unit that has a share in it.
        shape: (G, A, B, K), as which the tensor's elements are seen; unit `first + g * B + b` has the A * K elements
            (g, :, b, :).
    """

    attribute: str
    first: int
    shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class Cut:
    """Units of a layer, or of a child that the layer uses without calling its forward method.

    Attributes:
        child: the child's name; empty for the layer itself.
        units: how many.
        parts: where their parameters are.
        reading: how their activations are read.
    """

    child: str
    units: int
    parts: tuple[Part, ...]
    reading: Reading


def _tensor(layer: nn.Module, name: str) -> Tensor:
    """A tensor of the layer; not always an nn.Parameter, since a functional call puts plain tensors in their place."""
    tensor: Tensor = getattr(layer, name)
    return tensor


def _rows(layer: nn.Module, *attributes: str, first: int = 0) -> tuple[Part, ...]:
    """Units along the first axis of each of the tensors that the layer has."""
    parts = []
    for attribute in attributes:
        tensor = getattr(layer, attribute)
        if tensor is not None:
            rows = tensor.shape[0]
            parts.append(Part(attribute, first, (1, 1, rows, tensor[0].numel())))
    return tuple(parts)


def _output(_layer: nn.Module, call: Call) -> tuple[object, ...]:
    return (call.output,)


def _mean_of_last(features: Tensor, batch_axis: int, units: Tensor | None) -> Tensor:
    """(b, u) from features in the last axis, averaged over every axis but these two."""
    by_sample = features.movedim(batch_axis, 0)
    means = by_sample.flatten(1, -2).mean(1) if by_sample.ndim > 2 else by_sample
    return means if units is None else means[:, units]


FEATURES_LAST = Reading(
    tensors=_output,
    trailing=lambda _layer: 1,
    means=lambda _layer, tensors, batch_axis, units: _mean_of_last(tensors[0], batch_axis, units),
)

CHANNELS_SECOND = Reading(
    tensors=_output,
    trailing=lambda _layer: None,
    means=lambda _layer, tensors, _batch_axis, units: _mean_of_last(tensors[0].movedim(1, -1), 0, units),
)


def _normalised_axes(layer: nn.Module) -> int:
    return len(layer.normalized_shape)  # type: ignore[arg-type]  # LayerNorm and RMSNorm: a tuple


NORMALISED_LAST = Reading(
    tensors=_output,
    trailing=_normalised_axes,
    means=lambda layer, tensors, batch_axis, units: _mean_of_last(
        tensors[0].flatten(-_normalised_axes(layer)), batch_axis, units
    ),
)


def _token_shares(layer: nn.Module, tensors: tuple[Tensor, ...], batch_axis: int, units: Tensor | None) -> Tensor:
    weight = _tensor(layer, "weight")
    rows = torch.arange(len(weight), device=weight.device) if units is None else units.to(weight.device)
    tokens = tensors[0].movedim(batch_axis, 0).reshape(tensors[0].shape[batch_axis], -1)
    # Rows that are not asked for are counted in one last column, so that nothing has the size of the vocabulary.
    column = torch.full((len(weight),), len(rows), device=weight.device)
    column[rows] = torch.arange(len(rows), device=weight.device)
    counts = weight.new_zeros(len(tokens), len(rows) + 1)
    counts.scatter_add_(1, column[tokens], counts.new_ones(()).expand(tokens.shape))
    shown: Tensor = counts[:, :-1] / tokens.shape[1] * torch.linalg.vector_norm(weight[rows], dim=1)
    return shown


TOKEN_SHARES = Reading(
    tensors=lambda _layer, call: (call.argument(0, "input"),), trailing=lambda _layer: 0, means=_token_shares
)


def _projections(layer: nn.Module, tensors: tuple[Tensor, ...], batch_axis: int, units: Tensor | None) -> Tensor:
    packed: Tensor | None = getattr(layer, "in_proj_weight", None)
    weights = (
        [_tensor(layer, name) for name in SEPARATE_PROJECTIONS]
        if packed is None
        else packed.tensor_split(len(SEPARATE_PROJECTIONS))
    )
    # A projection is linear: the mean of the projected positions is the projection of their mean.
    projected = torch.cat(
        [
            functional.linear(_mean_of_last(tensor, batch_axis, None), weight)
            for tensor, weight in zip(tensors, weights, strict=True)
        ],
        dim=1,
    )
    bias: Tensor | None = getattr(layer, "in_proj_bias", None)
    projected = projected if bias is None else projected + bias
    return projected if units is None else projected[:, units]


SEPARATE_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Of a MultiheadAttention whose keys or values have another width than its queries."""

PROJECTIONS = Reading(
    tensors=lambda _layer, call: tuple(call.argument(*named) for named in enumerate(("query", "key", "value"))),
    trailing=lambda _layer: 1,
    means=_projections,
)

ATTENTION_OUTPUT = Reading(
    tensors=lambda _layer, call: call.output[:1] if isinstance(call.output, tuple) else (None,),
    trailing=lambda _layer: 1,
    means=FEATURES_LAST.means,
)


def _of_features(layer: nn.Module) -> tuple[Cut, ...]:
    return (Cut("", _tensor(layer, "weight").shape[0], _rows(layer, "weight", "bias"), FEATURES_LAST),)


def _of_filters(layer: nn.Module) -> tuple[Cut, ...]:
    return (Cut("", _tensor(layer, "weight").shape[0], _rows(layer, "weight", "bias"), CHANNELS_SECOND),)


def _of_transposed_filters(layer: nn.Module) -> tuple[Cut, ...]:
    # The weight is (ins, outs / groups, kernel...): a unit's elements are one column of its group's rows.
    weight = _tensor(layer, "weight")
    groups = int(layer.groups)  # type: ignore[arg-type]  # an int on every convolution
    ins, outs = weight.shape[:2]
    part = Part("weight", 0, (groups, ins // groups, outs, weight[0, 0].numel()))
    return (Cut("", groups * outs, (part, *_rows(layer, "bias")), CHANNELS_SECOND),)


def _of_channels(layer: nn.Module) -> tuple[Cut, ...]:
    parts = _rows(layer, "weight", "bias")
    return (Cut("", _tensor(layer, "weight").shape[0], parts, CHANNELS_SECOND),) if parts else ()


def _of_normalised(layer: nn.Module) -> tuple[Cut, ...]:
    present = [name for name in ("weight", "bias") if getattr(layer, name, None) is not None]
    if not present:
        return ()
    units = _tensor(layer, "weight").numel()
    return (Cut("", units, tuple(Part(name, 0, (1, 1, units, 1)) for name in present), NORMALISED_LAST),)


def _of_rows(layer: nn.Module) -> tuple[Cut, ...]:
    return (Cut("", _tensor(layer, "weight").shape[0], _rows(layer, "weight"), TOKEN_SHARES),)


def _of_projections(layer: nn.Module) -> tuple[Cut, ...]:
    width = int(layer.embed_dim)  # type: ignore[arg-type]  # an int on MultiheadAttention
    parts = [*_rows(layer, "in_proj_weight", "in_proj_bias")]
    for place, name in enumerate(SEPARATE_PROJECTIONS):
        parts += _rows(layer, name, first=place * width)
    out = layer.get_submodule("out_proj")
    return (
        Cut("", len(SEPARATE_PROJECTIONS) * width, tuple(parts), PROJECTIONS),
        # The attention uses this layer's parameters and never calls it.
        Cut("out_proj", width, _rows(out, "weight", "bias"), ATTENTION_OUTPUT),
    )


CUTTERS: Mapping[tuple[type[nn.Module], ...], Callable[[nn.Module], tuple[Cut, ...]]] = MappingProxyType(
    {
        (nn.Linear,): _of_features,
        (nn.Conv1d, nn.Conv2d, nn.Conv3d): _of_filters,
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): _of_transposed_filters,
        (_BatchNorm, _InstanceNorm, nn.GroupNorm): _of_channels,
        (nn.LayerNorm, nn.RMSNorm): _of_normalised,
        (nn.Embedding,): _of_rows,
        (nn.MultiheadAttention,): _of_projections,
    }
)
"""Layer types, subclasses included, and how they are cut."""


def cuts(layer: nn.Module) -> tuple[Cut, ...]:
    """The units of a layer; none for a kind that cannot be sliced."""
    for types, cutter in CUTTERS.items():
        if isinstance(layer, types):
            return cutter(layer)
    return ()
