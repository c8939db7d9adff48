"""How long computations say how far they are."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float], None]
"""Takes the fraction done, rising to 1.0."""
