"""The optimisers that go by a name. Apart from what runs them, so that reading a name costs no import of torch."""

from __future__ import annotations

from enum import StrEnum


class Optimiser(StrEnum):
    """The optimisers that a surrogate can be trained with."""

    SGD = "sgd"
    ADAM = "adam"
