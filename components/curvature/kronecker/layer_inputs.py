"""What a layer's weight is multiplied with, as rows; and a layer's gradient, as rows.

Axes: b samples, T positions of one sample, I inputs of one output, C outputs.

A convolution is a linear map of patches: its input becomes (b, T, I) with one row per output position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from oubli.components.errors import ConfigurationError


def input_rows(module: nn.Module, inputs: Tensor, samples: int) -> Tensor:
    """A layer's input, one row per output position.

    Args:
        module: A Linear or an undivided convolution.
        inputs: What it was called with; samples on the first axis.
        samples: b.

    Returns:
        (b, T, I), without the bias's one.

    Raises:
        ConfigurationError: The first axis is not the samples'.
    """
    _check_leading(module, inputs, samples)
    if isinstance(module, nn.Linear):
        return inputs.reshape(samples, -1, inputs.shape[-1])
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)  # noqa: S101 - what layers.py lets through
    return _patches(module, inputs)


def gradient_rows(module: nn.Module, gradient: Tensor, samples: int) -> Tensor:
    """The gradient in a layer's output, one row per position.

    Args:
        module: A Linear or an undivided convolution.
        gradient: In the shape of its output; samples on the first axis.
        samples: b.

    Returns:
        (b, T, C).

    Raises:
        ConfigurationError: The first axis is not the samples'.
    """
    _check_leading(module, gradient, samples)
    if isinstance(module, nn.Linear):
        return gradient.reshape(samples, -1, gradient.shape[-1])
    return gradient.flatten(2).transpose(1, 2)


def _patches(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor) -> Tensor:
    """(b, T, I): what the kernel sees at each position."""
    padded = _padded(module, inputs)
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    if isinstance(module, nn.Conv3d):
        for axis in range(3):
            padded = padded.unfold(axis + 2, kernel[axis], stride[axis])
        # (b, channels, positions..., kernel...) -> (b, positions, channels and kernel)
        return padded.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(1, 3)
    if isinstance(module, nn.Conv1d):
        padded = padded[:, :, None]
        kernel, stride, dilation = (1, *kernel), (1, *stride), (1, *dilation)
    return functional.unfold(padded, kernel, dilation=dilation, stride=stride).transpose(1, 2)


def add_outer_products(total: Tensor, rows: Tensor, *, bias: bool) -> None:
    """Add sum a a^T over rows to `total`, without a copy of them: patches come with positions last in memory.

    Args:
        total: (I, I), or (I + 1, I + 1) with `bias`; changed in place.
        rows: (b, T, I).
        bias: As if each row ended in a 1.
    """
    width = rows.shape[-1]
    products = total[:width, :width]
    if rows.shape[1] == 1:
        flat = rows[:, 0]
        products.addmm_(flat.T, flat)
    elif rows.is_contiguous():
        flat = rows.flatten(0, 1)
        products.addmm_(flat.T, flat)
    else:
        products.addbmm_(rows.transpose(1, 2), rows)
    if bias:
        sums = rows.sum((0, 1))
        total[width, :width] += sums
        total[:width, width] += sums
        total[width, width] += rows.shape[0] * rows.shape[1]


def _padded(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, inputs: Tensor) -> Tensor:
    sides: list[int] = []
    # Last axis first, as functional.pad takes them.
    for axis in reversed(range(len(module.kernel_size))):
        sides.extend(_sides(module.padding, axis, module.kernel_size, module.dilation))
    if not any(sides):
        return inputs
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return functional.pad(inputs, sides, mode=mode)


def _sides(padding: str | Sequence[int], axis: int, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = dilation[axis] * (kernel[axis] - 1)
        return total // 2, total - total // 2
    return int(padding[axis]), int(padding[axis])


def _check_leading(module: nn.Module, tensor: Tensor, samples: int) -> None:
    if tensor.shape[0] != samples:
        raise ConfigurationError(
            f"A {type(module).__name__} got {tensor.shape[0]} rows for {samples} samples: they are on another axis.",
            remedy="Keep samples on the first axis, or use the curvature ggn.",
        )


def with_ones(rows: Tensor) -> Tensor:
    """(b, T, I + 1): the input that the bias is multiplied with, beside the others."""
    return torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], dim=-1)
