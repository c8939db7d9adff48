"""What an update may cost, and what it may start from.

The bounds stand in the fields' metadata, under the names that pydantic knows: a configuration that nests the limits
shows the descriptions and enforces the bounds without saying them again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from oubli.components.errors import ConfigurationError
from oubli.components.removal.damping import GRADIENT_RISE


def _limit(default: float, description: str, **bounds: float) -> Any:
    """A finite limit with its bounds: `ge`, `gt`, `le`, as pydantic calls them."""
    return field(default=default, metadata={"description": description, "allow_inf_nan": False, **bounds})


@dataclass(frozen=True)
class GateLimits:
    """The limits that an update is judged by.

    `accuracy_drop` and `loss_rise` hold against the parent and, over a chain of removals, against the model that was
    trained.

    Raises:
        ConfigurationError: a limit is not finite, or outside its bounds.
    """

    accuracy_drop: float = _limit(
        0.01, "Refuse where test accuracy falls by more than this fraction (0.01 = one point).", ge=0, le=1
    )
    loss_rise: float = _limit(
        0.05, "For a regression model: refuse where test loss rises by more than this fraction.", ge=0
    )
    gradient_floor: float = _limit(
        1e-6, "Gradient norms up to this count as zero, so that rounding at a minimum is no rise.", ge=0
    )
    gradient_rise: float = _limit(
        GRADIENT_RISE,
        "For a network: refuse where the retained gradient norm rises by more than this fraction. That of a convex "
        "model may not rise.",
        ge=0,
    )
    gradient_ratio: float = _limit(
        10.0,
        "Refuse where the model's own gradient exceeds this many times that of the removal: it was never trained to a "
        "minimum, and the step would go on training instead of forgetting.",
        gt=0,
    )
    convex_gradient_fraction: float = _limit(
        1e-2, "For a convex model: refuse where more than this share of the retained gradient is left.", gt=0, le=1
    )
    class_share: float = _limit(
        0.25,
        "For a network: refuse where the removals since training take more than this share of a class.",
        ge=0,
        le=1,
    )
    membership_left: float = _limit(
        0.05,
        "For a network: refuse where membership inference still tells the removed samples from test samples better "
        "than chance, and better than is expected of a model that never saw them by more than this area under the "
        "curve.",
        ge=0,
        le=1,
    )

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, bounds = getattr(self, limit.name), limit.metadata
            above = value > bounds["gt"] if "gt" in bounds else value >= bounds["ge"]
            if not (math.isfinite(value) and above and value <= bounds.get("le", math.inf)):
                raise ConfigurationError(
                    f"Gate limit {limit.name} is {value}; it must be finite, {_range(bounds)}.",
                    remedy=f"Leave it out for the default, {limit.default}.",
                )


def _range(bounds: Mapping[str, Any]) -> str:
    """Bounds in words."""
    low = f"above {bounds['gt']:g}" if "gt" in bounds else f"at least {bounds['ge']:g}"
    return f"{low} and at most {bounds['le']:g}" if "le" in bounds else low
