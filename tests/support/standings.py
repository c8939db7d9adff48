"""Statistics of a removal that was forgotten well, which the acceptance rules' tests change one at a time."""

from __future__ import annotations

from dataclasses import replace

from oubli.components.gate.acceptance import AcceptanceStatistics, Standing
from oubli.components.measures.paired import Paired

NEVER_SAW = Standing(
    divergence_removed=0.5,
    divergence_held_out=0.5,
    quantiles_removed=(0.0, 0.2, 1.0),
    quantiles_held_out=(0.0, 0.2, 1.0),
    excess_divergence=0.0,
    rank=0.5,
    rank_over_classes=0.5,
    as_labelled=0.6,
    accuracy=0.8,
    loss_removed=1.0,
    loss_held_out=0.5,
)
"""One who never saw the removed samples."""

REMEMBERS = replace(
    NEVER_SAW,
    divergence_removed=2.0,
    excess_divergence=2.0,
    rank=0.9,
    rank_over_classes=0.95,
    as_labelled=1.0,
    loss_removed=0.1,
)
"""One who was trained on them."""

FORGOTTEN = AcceptanceStatistics(
    removed=400,
    held_out=1000,
    updated=NEVER_SAW,
    original=REMEMBERS,
    judge=NEVER_SAW,
    witness=NEVER_SAW,
    as_labelled_spread=0.4,
    accuracy=Paired(1000, 0.8, 0.8, 0.005),
)
"""An updated model that stands as one who never saw the samples does, beside an original that remembers them."""


def nothing_done(original: Standing = REMEMBERS, removed: int = 400) -> AcceptanceStatistics:
    """The original model itself, as the outcome of its update."""
    return replace(FORGOTTEN, updated=original, original=original, removed=removed)
