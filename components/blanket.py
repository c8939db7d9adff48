"""The parameters that carry what the loss knows about the removed samples.

Axes: m removed samples, N perturbed copies, p slices, d parameters.

Mehta et al., CVPR 2022, section 4: for each removed sample, perturb its input N times, record losses and slice
activations, and let L-FOCI choose slices. The block is the union of the chosen slices' parameters. One selection on
the batch's mean activations would cost less, but misses most of what the single samples select.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from oubli.components.activations import record_activations, recordable
from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.objective import Objective
from oubli.components.perturbation import PERTURBATIONS, SIGMA, gaussian_copies
from oubli.components.progress import Progress
from oubli.components.samples import Samples
from oubli.components.selection import StopReason, l_foci
from oubli.components.selection.columns import NOISE_SCALE
from oubli.components.slices import Slice, find_slices


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
    """The union of the slices chosen for m removed samples.

    slices: the chosen ones, in the module's order; counts: how many samples chose each; selections: per removed
    sample, in order; candidates: p; unsliced: parameter tensors that no recorded slice holds, and which the block
    can therefore not contain; indices: sorted flat parameter indices of the block, int64 on the CPU; noise_scale: that
    of L-CODEC's noise in every selection, in standard deviations of a column.
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
        """Positions of the removed samples for which no slice was chosen."""
        return tuple(place for place, one in enumerate(self.selections) if not one.order)


def select_blanket(
    objective: Objective,
    theta: Tensor,
    removed: Samples,
    *,
    perturbations: int = PERTURBATIONS,
    sigma: float = SIGMA,
    seed: int,
    on_progress: Progress | None = None,
) -> Blanket:
    """The block of parameters for `removed`, at weights `theta` (d,).

    Every removed sample has generators of its own, derived from `seed` and its position, so that a selection depends
    neither on the other samples nor on how the copies are cut into chunks.

    Raises ConfigurationError where nothing is removed or no layer can be sliced, NonFiniteInput where the perturbed
    losses are not finite.
    """
    objective.check(theta)
    if len(removed) == 0:
        raise ConfigurationError("The removal set is empty.", remedy="Pass at least one removed sample.")
    prepared = objective.prepare(removed)
    slices = recordable(objective, theta, find_slices(objective.module), prepared.inputs[:1])
    candidates = slices.slices
    if not candidates:
        raise ConfigurationError(
            f"{type(objective.module).__name__} has no Linear or Conv layer that can be sliced.",
            remedy="Update all parameters instead of a blanket.",
        )

    selections = []
    for place in range(len(prepared)):
        for_noise, for_selection = np.random.SeedSequence((seed, place)).spawn(2)
        # 63 bits: a torch seed is a signed integer.
        torch_seed = int(for_noise.generate_state(1, np.uint64)[0]) >> 1
        inputs = gaussian_copies(
            prepared.inputs[place],
            count=perturbations,
            sigma=sigma,
            generator=torch.Generator().manual_seed(torch_seed),
        )
        labels = prepared.labels[place : place + 1].expand(perturbations, *prepared.labels.shape[1:])
        record = record_activations(objective, theta, slices, Samples(inputs, labels))
        if not (np.isfinite(record.losses).all() and np.isfinite(record.activations).all()):
            raise NonFiniteInput(
                f"Removed sample {place}: perturbed losses or activations are not finite.",
                remedy="Check the input's normalisation, or compute in float64.",
            )
        found = l_foci(
            record.activations,
            record.losses,
            noise_scale=NOISE_SCALE,
            generator=np.random.default_rng(for_selection),
        )
        selections.append(
            SampleSelection(tuple(candidates[column] for column in found.order), found.scores, found.stop)
        )
        if on_progress is not None:
            on_progress((place + 1) / len(prepared))

    counts = Counter(one for selection in selections for one in selection.order)
    chosen = tuple(one for one in candidates if one in counts)
    return Blanket(
        slices=chosen,
        counts=tuple(counts[one] for one in chosen),
        selections=tuple(selections),
        candidates=len(candidates),
        unsliced=slices.unsliced,
        indices=slices.indices(chosen),
        noise_scale=NOISE_SCALE,
    )
