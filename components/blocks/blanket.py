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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from oubli.components.blocks.activations import ActivationRecord, record_perturbed, recordable
from oubli.components.blocks.perturbation import PERTURBATIONS, GaussianPerturbation, Perturbation
from oubli.components.blocks.slices import Slice, SliceMap, find_slices
from oubli.components.blocks.union import SampleSelection, UnionRule, check_positive, union_of
from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.lfoci import Selection, l_foci, l_foci_many
from oubli.components.lfoci.columns import NOISE_SCALE
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.progress import Progress


@dataclass(frozen=True)
class BlanketPlan:
    """How samples are perturbed, how L-FOCI selects for each, and what becomes of the selections.

    Attributes:
        perturbation: how copies of a sample are drawn.
        perturbations: N, copies of each sample.
        noise_scale: of L-CODEC's noise, in standard deviations of a column.
        max_columns: the most slices that one selection takes; None for no limit.
        union: which of the selected slices make the block.
        threads: for the selections; None takes every core.
        budget_bytes: memory for one chunk of copies, and for the records of one group of samples.

    Raises:
        ConfigurationError: `max_columns` is below 1.
    """

    perturbation: Perturbation = field(default_factory=GaussianPerturbation)
    perturbations: int = PERTURBATIONS
    noise_scale: float = NOISE_SCALE
    max_columns: int | None = None
    union: UnionRule = field(default_factory=UnionRule)
    threads: int | None = None
    budget_bytes: int = MEMORY_BUDGET_BYTES

    def __post_init__(self) -> None:
        check_positive("max_columns", self.max_columns)


@dataclass(frozen=True)
class Blanket:
    """The slices chosen for m removed samples.

    Attributes:
        slices: the chosen ones, in the module's order.
        counts: how many selections contain each (0 where only its layer was chosen).
        selections: per removed sample, in order, or one for the whole batch.
        candidates: p.
        unsliced: names of parameter tensors that no recorded slice holds, and which the block can therefore not
            contain.
        indices: (d_P,) sorted flat parameter indices of the block, int64 on the CPU.
        noise_scale: of L-CODEC's noise in every selection, in standard deviations of a column.
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
        return tuple(position for position, selection in enumerate(self.selections) if not selection.order)


def select_blanket(
    objective: Objective,
    theta: Tensor,
    removed: Samples,
    plan: BlanketPlan | None = None,
    *,
    seed: int,
    batch: bool = False,
    on_progress: Progress | None = None,
) -> Blanket:
    """The block of parameters for the removed samples.

    Every removed sample has generators of its own, derived from `seed` and its position, so that neither the cutting
    into chunks nor the number of threads changes a selection, nor do the other samples (but for the rows of embeddings:
    candidates are those that any of them uses).

    Args:
        objective: the module and its loss.
        theta: (d,) weights to select at.
        removed: m samples, at least one.
        plan: None for the paper's.
        seed: of the perturbations and of L-CODEC's noise.
        batch: one selection from the batch's means instead of one for each sample.
        on_progress: called with the share that is done.

    Raises:
        ConfigurationError: nothing is removed, no layer can be sliced, or the perturbation does not suit the inputs.
        NonFiniteInput: the weights, perturbed losses or activations are not finite.
    """
    plan = plan or BlanketPlan()
    slices, prepared = candidate_slices(objective, theta, removed)
    candidates = slices.slices
    progress = _Reporter(len(prepared), on_progress)
    records = _Recorder.of(objective, theta, slices, prepared, plan, seed).groups(progress)
    generator = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(1,)))
    selected: list[Selection] = []
    if batch:
        selected += _select([_mean_record(records, len(prepared))], plan, generator)
        progress.done(len(prepared))
    else:
        for group in records:
            selected += _select(group, plan, generator)
            progress.done(len(group))

    selections = tuple(_of_slices(selection, candidates) for selection in selected)
    chosen, counts = union_of(slices, selections, plan.union, batch=batch)
    return Blanket(
        slices=chosen,
        counts=counts,
        selections=selections,
        candidates=len(candidates),
        unsliced=slices.unsliced,
        indices=slices.indices(chosen),
        noise_scale=plan.noise_scale,
    )


def candidate_slices(objective: Objective, theta: Tensor, removed: Samples) -> tuple[SliceMap, Samples]:
    """The slices that a block can be made of.

    Args:
        objective: the module, and which of its parameters were trained.
        theta: (d,) weights.
        removed: m samples, at least one.

    Returns:
        The slices, and the samples prepared.

    Raises:
        ConfigurationError: nothing is removed or no layer can be sliced.
        NonFiniteInput: the weights are not finite.
    """
    objective.check(theta)
    if len(removed) == 0:
        raise ConfigurationError("The removal set is empty.", remedy="Pass at least one removed sample.")
    prepared = objective.prepare(removed)
    sliced = find_slices(objective.module, objective.space)
    slices = recordable(objective, theta, sliced, prepared.inputs)
    if not slices.slices:
        raise ConfigurationError(
            f"{type(objective.module).__name__} has no layer that can be sliced.",
            remedy="Update all parameters instead of a blanket.",
        )
    return slices, prepared


def _of_slices(selection: Selection, candidates: Sequence[Slice]) -> SampleSelection:
    """The columns of a selection as the slices that they record."""
    return SampleSelection(tuple(candidates[column] for column in selection.order), selection.scores, selection.stop)


class _Reporter:
    """Progress over m samples, each of which is recorded and takes part in a selection."""

    def __init__(self, samples: int, on_progress: Progress | None) -> None:
        self._total, self._done, self._on_progress = 2 * samples, 0, on_progress

    def done(self, samples: int) -> None:
        """One of both, for so many."""
        self._done += samples
        if self._on_progress is not None:
            self._on_progress(self._done / self._total)


@dataclass(frozen=True)
class _Recorder:
    """Records removed samples, each from a stream of random numbers of its own.

    In single precision: three times as fast, and its rounding lies below L-CODEC's noise.
    """

    objective: Objective
    theta: Tensor
    slices: SliceMap
    prepared: Samples
    plan: BlanketPlan
    seed: int

    @classmethod
    def of(
        cls, objective: Objective, theta: Tensor, slices: SliceMap, prepared: Samples, plan: BlanketPlan, seed: int
    ) -> _Recorder:
        single = replace(objective, dtype=torch.float32)
        return cls(single, theta.to(single.dtype), slices, single.prepare(prepared), plan, seed)

    def groups(self, progress: _Reporter) -> Iterator[list[ActivationRecord]]:
        """All samples' records, as many at a time as fit in the budget."""
        # A record, and the engine's copy of it.
        table_bytes = 2 * self.plan.perturbations * len(self.slices.slices) * np.dtype(np.float64).itemsize
        at_once = max(1, self.plan.budget_bytes // table_bytes)
        for start in range(0, len(self.prepared), at_once):
            positions = range(start, min(start + at_once, len(self.prepared)))
            records = self.record(positions)
            progress.done(len(positions))
            yield records

    def record(self, positions: range) -> list[ActivationRecord]:
        chosen = slice(positions.start, positions.stop)
        records = record_perturbed(
            self.objective,
            self.theta,
            self.slices,
            Samples(self.prepared.inputs[chosen], self.prepared.labels[chosen]),
            self.plan.perturbation,
            count=self.plan.perturbations,
            generators=[self._generator(position) for position in positions],
            budget_bytes=self.plan.budget_bytes,
        )
        for position, record in zip(positions, records, strict=True):
            if not (np.isfinite(record.losses).all() and np.isfinite(record.activations).all()):
                raise NonFiniteInput(
                    f"Removed sample {position}: perturbed losses or activations are not finite.",
                    remedy="Check the input's normalisation.",
                )
        return records

    def _generator(self, position: int) -> torch.Generator:
        noise = np.random.SeedSequence(entropy=self.seed, spawn_key=(0, position))
        # 63 bits: a torch seed is a signed integer.
        return torch.Generator().manual_seed(int(noise.generate_state(1, np.uint64)[0]) >> 1)


def _mean_record(groups: Iterator[list[ActivationRecord]], samples: int) -> ActivationRecord:
    """The mean over the samples of their records; one group is held at a time."""
    activations, losses = np.zeros(()), np.zeros(())
    for group in groups:
        for record in group:
            activations, losses = activations + record.activations, losses + record.losses
    return ActivationRecord(activations / samples, losses / samples)


def _select(
    records: Sequence[ActivationRecord], plan: BlanketPlan, generator: np.random.Generator
) -> Sequence[Selection]:
    """A selection for each record; the generator's next children serve them in order, however they are cut."""
    if len(records) > 1:
        return l_foci_many(
            [record.activations for record in records],
            [record.losses for record in records],
            noise_scale=plan.noise_scale,
            generator=generator,
            max_columns=plan.max_columns,
            threads=plan.threads,
        )
    # Alone, it is given all the threads.
    (record,) = records
    (child,) = generator.spawn(1)
    return [
        l_foci(
            record.activations,
            record.losses,
            noise_scale=plan.noise_scale,
            generator=child,
            max_columns=plan.max_columns,
            threads=plan.threads,
        )
    ]
