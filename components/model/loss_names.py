"""The losses that go by a name. Apart from their functions, so that reading a name costs no import of torch."""

from __future__ import annotations

from enum import StrEnum


class Loss(StrEnum):
    """The losses that a training record can name without an import string."""

    CROSS_ENTROPY = "cross_entropy"
    BCE_WITH_LOGITS = "bce_with_logits"
    MSE = "mse"
