"""What every removal asks of its arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput


def check_counts(removed: int, retained: int) -> None:
    """ConfigurationError where the removal set or the retained set is empty."""
    for name, count in (("removal set", removed), ("retained set", retained)):
        if count <= 0:
            raise ConfigurationError(
                f"The {name} is empty.", remedy="An update needs removed samples, and others that stay."
            )


def check_gradient(gradient: Tensor) -> None:
    """NonFiniteInput where an element of a gradient is NaN or infinite."""
    if not bool(torch.isfinite(gradient).all()):
        raise NonFiniteInput(
            "The gradient of the removed or the retained samples is NaN or infinite.",
            remedy="Check the samples for missing values, or retrain.",
        )
