"""Which of the slices that samples selected make the block.

Axes: m removed samples, d_P parameters of the block.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oubli.components.blocks.slice_sizes import within_size
from oubli.components.blocks.slices import Slice, SliceMap
from oubli.components.errors import ConfigurationError
from oubli.components.lfoci import StopReason


@dataclass(frozen=True)
class SampleSelection:
    """What L-FOCI chose for one removed sample.

    Attributes:
        order: the slices, in the order chosen; may be empty.
        scores: the score of each.
        stop: why it chose no more.
    """

    order: tuple[Slice, ...]
    scores: tuple[float, ...]
    stop: StopReason


@dataclass(frozen=True)
class UnionRule:
    """What becomes of the selections. The defaults are the paper's: the union of all of them, whole.

    Where a limit leaves slices out, those chosen by most samples stay, then those with the largest sum of scores, then
    the module's first. The three limits hold in the order of their fields.

    Attributes:
        min_samples: how many of the m samples must choose a slice for it to be in the union; says nothing where the
            batch has one selection.
        min_share: the same, as a share of the samples, 0 to 1.
        max_slices_per_layer: the most slices of a layer.
        max_slices: the most slices of the block.
        max_parameters: the most parameters of the block, as `within_size` counts them.
        whole_layers: take every slice of a layer that still has one, whatever the limits say.

    Raises:
        ConfigurationError: a count is below 1, or the share outside 0 to 1.
    """

    min_samples: int = 1
    min_share: float = 0.0
    max_slices_per_layer: int | None = None
    max_slices: int | None = None
    max_parameters: int | None = None
    whole_layers: bool = False

    def __post_init__(self) -> None:
        for name in ("min_samples", "max_slices_per_layer", "max_slices", "max_parameters"):
            check_positive(name, getattr(self, name))
        if not 0 <= self.min_share <= 1:
            raise ConfigurationError(
                f"min_share is {self.min_share}; a share lies between 0 and 1.", remedy="Use 0 for the whole union."
            )

    def least(self, samples: int) -> int:
        """How many of `samples` selections must contain a slice."""
        # A share times a count may be a last bit above a whole number.
        return max(self.min_samples, math.ceil(self.min_share * samples - 1e-9))


def union_of(
    slices: SliceMap, selections: Sequence[SampleSelection], rule: UnionRule, *, batch: bool
) -> tuple[tuple[Slice, ...], tuple[int, ...]]:
    """The slices of the block, and how many selections contain each.

    Args:
        slices: the candidates.
        selections: one for each removed sample, or one for the batch.
        rule: which of the selected slices are taken.
        batch: there is one selection for the whole batch, so that samples cannot agree.

    Returns:
        Slices in the module's order, and their counts (0 where only its layer was chosen).
    """
    counts = Counter(chosen for selection in selections for chosen in selection.order)
    scores: dict[Slice, float] = defaultdict(float)
    for selection in selections:
        for chosen, score in zip(selection.order, selection.scores, strict=True):
            scores[chosen] += score
    least = 1 if batch else rule.least(len(selections))
    agreed = [candidate for candidate in slices.slices if counts[candidate] >= least]
    # Sorting is stable: equals stay in the module's order.
    ranked = sorted(agreed, key=lambda chosen: (-counts[chosen], -scores[chosen]))
    if rule.max_slices_per_layer is not None:
        ranked = _at_most_per_layer(ranked, rule.max_slices_per_layer)
    ranked = ranked[: rule.max_slices]
    if rule.max_parameters is not None:
        ranked = list(within_size(slices, ranked, rule.max_parameters))
    kept, layers = set(ranked), {chosen.module for chosen in ranked}
    block = tuple(
        candidate
        for candidate in slices.slices
        if candidate in kept or (rule.whole_layers and candidate.module in layers)
    )
    return block, tuple(counts[chosen] for chosen in block)


def check_positive(name: str, value: int | None) -> None:
    """ConfigurationError for a limit below 1; None is no limit."""
    if value is not None and value < 1:
        raise ConfigurationError(f"{name} is {value}; at least 1 is needed.", remedy="Leave it out.")


def _at_most_per_layer(ranked: Iterable[Slice], limit: int) -> list[Slice]:
    taken: Counter[str] = Counter()
    kept = []
    for chosen in ranked:
        taken[chosen.module] += 1
        if taken[chosen.module] <= limit:
            kept.append(chosen)
    return kept
