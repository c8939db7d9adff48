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


def _limit(default: float, description: str, **bounds: float) -> Any:
    """A finite limit with its bounds: `ge`, `gt`, `le`, as pydantic calls them."""
    return field(default=default, metadata={"description": description, "allow_inf_nan": False, **bounds})


@dataclass(frozen=True)
class AcceptanceLimits:
    """The limits that a removal from a network is accepted by, from the statistics of `acceptance`.

    `excess_divergence`, `excess_rank` and `excess_as_labelled` were fitted on removals from one network
    (`benchmarks.unlearning.fitting`); how often all of them are wrong on other networks stands in `error_rates`.

    Raises:
        ConfigurationError: a limit is not finite, or outside its bounds.
    """

    accuracy_drop: float = _limit(
        0.01,
        "Refuse where accuracy surely falls by more than this fraction (0.01 = one point): where the lower end of its "
        "95 % interval does.",
        ge=0,
        le=1,
    )
    excess_divergence: float = _limit(
        0.35,
        "For a network: refuse where it disagrees with one who never saw the removed samples more on them than on "
        "held-out samples that are as hard, by more than this many of their standard deviations.",
        ge=0,
    )
    excess_rank: float = _limit(
        0.06,
        "For a network: refuse where its margins on the removed samples rank higher among those of held-out samples "
        "that are as hard than the middle, by more than this share.",
        ge=0,
        le=0.5,
    )
    excess_as_labelled: float = _limit(
        0.25,
        "For a network: refuse where it predicts more of the removed samples as labelled than one who never saw them, "
        "by more than this share beyond what it does on held-out samples.",
        ge=0,
        le=1,
    )
    memory_left: float = _limit(
        0.7,
        "For a network: of few removed samples each of these three may be larger by chance, but by no more than this "
        "share of what it was before the removal.",
        ge=0,
        le=1,
    )
    pushed_away: float = _limit(
        0.3,
        "For a network: refuse where the removed samples' margins rank lower among those of all pairs of a held-out "
        "sample and a class than under one who never saw them, by more than this share.",
        ge=0,
        le=1,
    )
    overshoot: float = _limit(
        2.5,
        "For a network: refuse where the loss on the removed samples is more than this many times the loss, on them "
        "and on held-out samples together, of one who never saw them.",
        gt=0,
    )
    drift: float = _limit(
        1.5,
        "For a network: refuse where it disagrees on held-out samples with one who never saw the removed ones more "
        "than this many times as much as before the removal.",
        gt=0,
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


@dataclass(frozen=True)
class GateLimits(AcceptanceLimits):
    """The limits that an update is judged by, beside those of acceptance.

    `accuracy_drop` and `loss_rise` hold against the retrained model where there is one; else against the parent and,
    over a chain of removals, against the model that was trained.
    """

    loss_rise: float = _limit(
        0.05,
        "For a regression model: refuse where test loss surely rises by more than this fraction, as for accuracy.",
        ge=0,
    )
    class_gone: float = _limit(
        0.5,
        "Judge accuracy without the test rows of a class or subject of which at least this share of the training "
        "samples is removed: on those retraining loses as much.",
        gt=0,
        le=1,
    )
    distance: float = _limit(
        1e-3,
        "For a convex model: refuse where the bound on the distance to the retrained weights exceeds this share of "
        "their norm. Within it, accuracy is no reason to refuse: retraining would lose the same.",
        gt=0,
    )
    convex_gradient_fraction: float = _limit(
        1e-2, "For a convex model: refuse where more than this share of the retained gradient is left.", gt=0, le=1
    )
    gradient_floor: float = _limit(
        1e-6, "Gradient norms up to this count as zero: rounding leaves as much at a minimum.", ge=0
    )
    membership_off: float = _limit(
        0.1,
        "For a network beside a retrained one: refuse where membership inference recognises the removed samples better "
        "than on the retrained model by more than this area under the curve.",
        ge=0,
        le=1,
    )


def _range(bounds: Mapping[str, Any]) -> str:
    """Bounds in words."""
    low = f"above {bounds['gt']:g}" if "gt" in bounds else f"at least {bounds['ge']:g}"
    return f"{low} and at most {bounds['le']:g}" if "le" in bounds else low
