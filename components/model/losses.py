"""Per-sample losses, and what else follows from the choice of a loss.

Axes: b samples of a batch, C classes or outputs, T further positions (pixels, tokens).

A per-sample loss averages over every axis but the first, as torch's own `reduction="mean"` does over equal shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from oubli.components.errors import ConfigurationError
from oubli.components.model.loss_names import Loss as Loss

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(outputs (b, ...), labels (b, ...)) -> losses (b,), differentiable in the outputs."""


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the softmax.

    Args:
        outputs: (b, C) or (b, C, T...) logits.
        labels: (b,) or (b, T...) int64 classes.

    Returns:
        (b,).
    """
    return _per_sample(functional.cross_entropy(outputs, labels, reduction="none"))


def bce_with_logits(outputs: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the sigmoid.

    Args:
        outputs: (b, ...) logits.
        labels: The same number of 0/1 targets, of any dtype.

    Returns:
        (b,).

    Raises:
        ConfigurationError: There are more or fewer labels than outputs.
    """
    targets = _as_targets(outputs, labels)
    return _per_sample(functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none"))


def mse(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error.

    Args:
        outputs: (b, ...).
        labels: The same number of targets.

    Returns:
        (b,).

    Raises:
        ConfigurationError: There are more or fewer labels than outputs.
    """
    return _per_sample(functional.mse_loss(outputs, _as_targets(outputs, labels), reduction="none"))


_FUNCTIONS = MappingProxyType({Loss.CROSS_ENTROPY: cross_entropy, Loss.BCE_WITH_LOGITS: bce_with_logits, Loss.MSE: mse})


def loss_function(loss: Loss) -> LossFunction:
    """The function of a named loss."""
    return _FUNCTIONS[loss]


def loss_kind(function: LossFunction) -> Loss | None:
    """The name of one of this module's functions, None for a loss from elsewhere."""
    return next((loss for loss, known in _FUNCTIONS.items() if known is function), None)


def correct_predictions(loss: Loss | None, outputs: Tensor, labels: Tensor) -> Tensor | None:
    """How right each sample's prediction is.

    Cross-entropy: the largest logit is the class. Binary cross-entropy: a positive logit is class 1.
    Squared errors and losses from elsewhere have no notion of a correct prediction.

    Args:
        loss: By name; None for one from elsewhere.
        outputs: (b, ...) of the model.
        labels: (b, ...), as the loss takes them.

    Returns:
        (b,) float64 fractions of each sample's labels; None where no rule exists.
    """
    if loss is Loss.CROSS_ENTROPY:
        return _per_sample((outputs.argmax(1) == labels).to(torch.float64))
    if loss is Loss.BCE_WITH_LOGITS:
        return _per_sample(((outputs > 0) == (_as_targets(outputs, labels) > 0.5)).to(torch.float64))
    return None


def is_predictive(loss: Loss | None) -> bool:
    """Whether a loss has a predictive distribution, as `log_probabilities` gives it."""
    return loss in (Loss.CROSS_ENTROPY, Loss.BCE_WITH_LOGITS)


def log_probabilities(loss: Loss | None, outputs: Tensor) -> Tensor | None:
    """The predictive distributions.

    Args:
        loss: By name; None for one from elsewhere.
        outputs: (b, ...) logits.

    Returns:
        (b, C, ...) log-probabilities over axis 1; None where there is no distribution.
    """
    if loss is Loss.CROSS_ENTROPY:
        return functional.log_softmax(outputs, dim=1)
    if loss is Loss.BCE_WITH_LOGITS:
        return torch.stack([functional.logsigmoid(-outputs), functional.logsigmoid(outputs)], dim=1)
    return None


def _per_sample(losses: Tensor) -> Tensor:
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def _as_targets(outputs: Tensor, labels: Tensor) -> Tensor:
    # (b,) targets for (b, 1) outputs would broadcast to (b, b), a well-known silent error.
    if labels.numel() != outputs.numel():
        raise ConfigurationError(
            f"The model's outputs have shape {tuple(outputs.shape)} but the labels {tuple(labels.shape)}.",
            remedy="Give one target per output, or a loss that compares these shapes.",
        )
    return labels.reshape(outputs.shape).to(outputs.dtype)
