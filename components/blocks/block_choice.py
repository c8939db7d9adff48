"""The ways to choose a block, by name. Apart from the ways, so that reading a name costs no import of torch."""

from __future__ import annotations

from enum import StrEnum


class BlockChoice(StrEnum):
    """How the block is chosen."""

    L_FOCI = "l_foci"
    """The union of what L-FOCI selects for each removed sample."""

    L_FOCI_BATCH = "l_foci_batch"
    """One L-FOCI selection, from the means over the removed samples."""

    TOP_GRADIENT = "top_gradient"
    """The slices with the largest norm of the removed samples' summed loss gradient."""

    RANDOM = "random"
    """Slices in a random order."""

    FULL = "full"
    """Every trained parameter, sliced or not."""
