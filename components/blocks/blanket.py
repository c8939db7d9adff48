"""The parameters that carry what the loss knows about the removed samples.

Axes: m removed samples, N perturbed copies, p slices, d trained parameters, d_P of them in the block.

Mehta et al., CVPR 2022, section 4: for each removed sample, perturb its input N times, record losses and slice
activations, and let L-FOCI choose slices. The block is the union of the chosen slices' parameters. Columns are always
standardised: L-FOCI's engine does so before it measures distances, and has no switch for it.

One selection for the whole batch averages copy k of every sample over the batch, activations and losses alike, and
chooses from these means. It costs one selection instead of m, but the samples' own noise shrinks in the means by
sqrt(m), and much of what single samples select is missed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from oubli.components.blocks.activations import ActivationRecord, record_perturbed, recordable
from oubli.components.blocks.perturbation import PERTURBATIONS, SIGMA, GaussianPerturbation, Perturbation
from oubli.components.blocks.slice_sizes import within_size
from oubli.components.blocks.slices import Slice, SliceMap, find_slices
from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.lfoci import Selection as Found
from oubli.components.lfoci import StopReason, l_foci, l_foci_many
from oubli.components.lfoci.columns import NOISE_SCALE
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.progress import Progress


@dataclass(frozen=True)
class BlanketOptions:
    """What becomes of the selections. The defaults are the paper's: the union of all of them, whole.

    noise_scale: that of L-CODEC's noise, in standard deviations of a column. max_columns: the most slices that one
    selection takes.
    min_samples, min_share: how many of the m samples, and what share of them, must choose a slice for it to be in the
    union; they say nothing where the batch has one selection.
    max_slices_per_layer, max_slices, max_parameters: the most slices of a layer, slices, and parameters of the block.
    Those chosen by most samples stay, then those with the largest sum of scores, then the module's first; the three
    limits hold in this order, `max_parameters` as `within_size` says.
    whole_layers: every slice of a layer that still has one, whatever the limits say.

    Raises ConfigurationError for counts below 1 and shares outside 0 to 1.
    """

    noise_scale: float = NOISE_SCALE
    max_columns: int | None = None
    min_samples: int = 1
    min_share: float = 0.0
    max_slices_per_layer: int | None = None
    max_slices: int | None = None
    max_parameters: int | None = None
    whole_layers: bool = False

    def __post_init__(self) -> None:
        for name in ("max_columns", "min_samples", "max_slices_per_layer", "max_slices", "max_parameters"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} is {value}; at least 1 is needed.", remedy="Leave it out.")
        if not 0 <= self.min_share <= 1:
            raise ConfigurationError(
                f"min_share is {self.min_share}; a share lies between 0 and 1.", remedy="Use 0 for the whole union."
            )

    def least(self, samples: int) -> int:
        """How many of `samples` selections must contain a slice."""
        # A share times a count may be a last bit above a whole number.
        return max(self.min_samples, math.ceil(self.min_share * samples - 1e-9))


@dataclass(frozen=True)
class SampleSelection:
    """What L-FOCI chose for one removed sample, in order, with the score of each; both may be empty.

    stop: why it chose no more.
    """

    order: tuple[Slice, ...]
    scores: tuple[float, ...]
    stop: StopReason


@dataclass(frozen=True)
class Blanket:
    """The slices chosen for m removed samples.

    slices: the chosen ones, in the module's order; counts: how many selections contain each (0 where only its layer was
    chosen); selections: per removed sample, in order, or one for the whole batch; candidates: p; unsliced: parameter
    tensors that no recorded slice holds, and which the block can therefore not contain; indices: sorted flat parameter
    indices of the block, int64 on the CPU; noise_scale: that of L-CODEC's noise in every selection, in standard
    deviations of a column.
    """

    slices: tuple[Slice, ...]
    counts: tuple[int, ...]
    selections: tuple[SampleSelection, ...]
    candidates: int
    unsliced: tuple[str, ...]
    indices: Tensor
    noise_scale: float

    @property
    def selected_nothing(self) -> tuple[int, ...]:
        """Positions of the selections (the removed samples) in which no slice was chosen."""
        return tuple(place for place, one in enumerate(self.selections) if not one.order)


def select_blanket(
    objective: Objective,
    theta: Tensor,
    removed: Samples,
    *,
    perturbation: Perturbation | None = None,
    perturbations: int = PERTURBATIONS,
    sigma: float = SIGMA,
    seed: int,
    batch: bool = False,
    options: BlanketOptions | None = None,
    threads: int | None = None,
    budget_bytes: int = MEMORY_BUDGET_BYTES,
    on_progress: Progress | None = None,
) -> Blanket:
    """The block of parameters for `removed`, at weights `theta` (d,).

    perturbation: how copies are drawn; None is Gaussian noise of `sigma`. perturbations: N. batch: one selection from
    the batch's means instead of one for each sample. threads: for the selections; None takes every core.

    Every removed sample has generators of its own, derived from `seed` and its position, so that neither the cutting
    into chunks nor the number of threads changes a selection, nor do the other samples (but for the rows of embeddings:
    candidates are those that any of them uses).

    Raises ConfigurationError where nothing is removed or no layer can be sliced, NonFiniteInput where the perturbed
    losses or activations are not finite.
    """
    options = options or BlanketOptions()
    perturbation = perturbation or GaussianPerturbation(sigma)
    slices, prepared = candidate_slices(objective, theta, removed)
    candidates = slices.slices
    reporter = _Reporter(len(prepared), on_progress)

    def record(place: int) -> ActivationRecord:
        noise = np.random.SeedSequence(entropy=seed, spawn_key=(0, place))
        # 63 bits: a torch seed is a signed integer.
        torch_seed = int(noise.generate_state(1, np.uint64)[0]) >> 1
        seen = record_perturbed(
            objective,
            theta,
            slices,
            Samples(prepared.inputs[place : place + 1], prepared.labels[place : place + 1]),
            perturbation,
            count=perturbations,
            generator=torch.Generator().manual_seed(torch_seed),
            budget_bytes=budget_bytes,
        )
        if not (np.isfinite(seen.losses).all() and np.isfinite(seen.activations).all()):
            raise NonFiniteInput(
                f"Removed sample {place}: perturbed losses or activations are not finite.",
                remedy="Check the input's normalisation, or compute in float64.",
            )
        reporter.recorded()
        return seen

    generator = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(1,)))
    found: list[Found] = []
    if batch:
        found += _select([_mean_record(record, len(prepared))], options, generator, threads)
        reporter.selected(len(prepared))
    else:
        # A record, and the engine's copy of it.
        table_bytes = 2 * perturbations * len(candidates) * np.dtype(np.float64).itemsize
        chunk = max(1, budget_bytes // table_bytes)
        for start in range(0, len(prepared), chunk):
            places = range(start, min(start + chunk, len(prepared)))
            found += _select([record(place) for place in places], options, generator, threads)
            reporter.selected(len(places))

    selections = tuple(
        SampleSelection(tuple(candidates[column] for column in one.order), one.scores, one.stop) for one in found
    )
    chosen, counts = _chosen(slices, selections, options, batch=batch)
    return Blanket(
        slices=chosen,
        counts=counts,
        selections=selections,
        candidates=len(candidates),
        unsliced=slices.unsliced,
        indices=slices.indices(chosen),
        noise_scale=options.noise_scale,
    )


def candidate_slices(objective: Objective, theta: Tensor, removed: Samples) -> tuple[SliceMap, Samples]:
    """The slices that a block for `removed` can be made of, and the samples prepared.

    Raises ConfigurationError where nothing is removed or no layer can be sliced, NonFiniteInput for weights that are
    not finite.
    """
    objective.check(theta)
    if len(removed) == 0:
        raise ConfigurationError("The removal set is empty.", remedy="Pass at least one removed sample.")
    prepared = objective.prepare(removed)
    found = find_slices(objective.module, objective.space)
    slices = recordable(objective, theta, found, prepared.inputs)
    if not slices.slices:
        raise ConfigurationError(
            f"{type(objective.module).__name__} has no layer that can be sliced.",
            remedy="Update all parameters instead of a blanket.",
        )
    return slices, prepared


class _Reporter:
    """Progress over m samples, each of which is recorded and takes part in a selection."""

    def __init__(self, samples: int, on_progress: Progress | None) -> None:
        self._total, self._done, self._on_progress = 2 * samples, 0, on_progress

    def recorded(self) -> None:
        self._add(1)

    def selected(self, samples: int) -> None:
        self._add(samples)

    def _add(self, done: int) -> None:
        self._done += done
        if self._on_progress is not None:
            self._on_progress(self._done / self._total)


def _mean_record(record: Callable[[int], ActivationRecord], samples: int) -> ActivationRecord:
    """The mean over the samples of their records; one more is held at a time."""
    first = record(0)
    activations, losses = first.activations, first.losses
    for place in range(1, samples):
        one = record(place)
        activations, losses = activations + one.activations, losses + one.losses
    return ActivationRecord(activations / samples, losses / samples)


def _select(
    records: Sequence[ActivationRecord],
    options: BlanketOptions,
    generator: np.random.Generator,
    threads: int | None,
) -> Sequence[Found]:
    """A selection for each record; the generator's next children serve them in order, however they are cut."""
    if len(records) > 1:
        return l_foci_many(
            [one.activations for one in records],
            [one.losses for one in records],
            noise_scale=options.noise_scale,
            generator=generator,
            max_columns=options.max_columns,
            threads=threads,
        )
    # Alone, it is given all the threads.
    (record,) = records
    (child,) = generator.spawn(1)
    return [
        l_foci(
            record.activations,
            record.losses,
            noise_scale=options.noise_scale,
            generator=child,
            max_columns=options.max_columns,
            threads=threads,
        )
    ]


def _chosen(
    slices: SliceMap, selections: Sequence[SampleSelection], options: BlanketOptions, *, batch: bool
) -> tuple[tuple[Slice, ...], tuple[int, ...]]:
    """The slices of the block in the module's order, and how many selections contain each."""
    counts = Counter(one for selection in selections for one in selection.order)
    scores: dict[Slice, float] = defaultdict(float)
    for selection in selections:
        for one, score in zip(selection.order, selection.scores, strict=True):
            scores[one] += score
    least = 1 if batch else options.least(len(selections))
    agreed = [one for one in slices.slices if counts[one] >= least]
    # Sorting is stable: equals stay in the module's order.
    ranked = sorted(agreed, key=lambda one: (-counts[one], -scores[one]))
    if options.max_slices_per_layer is not None:
        ranked = _at_most_per_layer(ranked, options.max_slices_per_layer)
    ranked = ranked[: options.max_slices]
    if options.max_parameters is not None:
        ranked = list(within_size(slices, ranked, options.max_parameters))
    kept, layers = set(ranked), {one.module for one in ranked}
    block = tuple(one for one in slices.slices if one in kept or (options.whole_layers and one.module in layers))
    return block, tuple(counts[one] for one in block)


def _at_most_per_layer(ranked: Iterable[Slice], limit: int) -> list[Slice]:
    taken: Counter[str] = Counter()
    kept = []
    for one in ranked:
        taken[one.module] += 1
        if taken[one.module] <= limit:
            kept.append(one)
    return kept
