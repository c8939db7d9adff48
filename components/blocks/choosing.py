"""Which block of the parameters an update moves: the ways to choose it, behind one entry.

Axes: m removed samples, N perturbed copies, p slices, d trained parameters, d_P of them in the block.

L-FOCI (`blanket`) is the method; the largest removed gradient and chance are what it must beat at an equal size.
All ways choose among the same p slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from oubli.components.blocks.blanket import Blanket, BlanketOptions, candidate_slices, select_blanket
from oubli.components.blocks.perturbation import PERTURBATIONS, GaussianPerturbation, Perturbation
from oubli.components.blocks.slice_sizes import slice_totals, within_size
from oubli.components.blocks.slices import Slice, SliceMap
from oubli.components.errors import ConfigurationError
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.progress import Progress


class Selection(StrEnum):
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


@dataclass(frozen=True)
class Block:
    """A block, and what it was chosen by.

    indices: sorted flat parameter indices, int64 on the CPU; None for all d. May be empty where L-FOCI selects nothing.
    slices: the chosen ones, in the module's order; empty for FULL. candidates: p; 0 for FULL. unsliced: parameter
    tensors that the block could not contain. blanket: L-FOCI's evidence; norms: of TOP_GRADIENT, the gradient norm of
    each slice. None where another way chose.
    """

    selection: Selection
    indices: Tensor | None
    slices: tuple[Slice, ...] = ()
    candidates: int = 0
    unsliced: tuple[str, ...] = ()
    blanket: Blanket | None = None
    norms: tuple[float, ...] | None = None

    @property
    def empty(self) -> bool:
        """No parameter was chosen."""
        return self.indices is not None and len(self.indices) == 0

    def size(self, objective: Objective) -> int:
        """d_P."""
        return objective.space.d if self.indices is None else len(self.indices)


def select_block(
    selection: Selection,
    objective: Objective,
    theta: Tensor,
    removed: Samples,
    *,
    perturbation: Perturbation | None = None,
    perturbations: int = PERTURBATIONS,
    seed: int,
    size: int | None = None,
    options: BlanketOptions | None = None,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> Block:
    """The block for `removed`, at weights `theta` (d,).

    size: its number of parameters, as near as whole slices come to it from below (`within_size`). TOP_GRADIENT and
    RANDOM need one; with L-FOCI it is the upper limit of `options.max_parameters`; FULL has none. perturbation (None:
    Gaussian, with the paper's sigma), perturbations (N), options and threads are L-FOCI's; seed is also RANDOM's.

    Raises ConfigurationError where nothing is removed, no layer can be sliced, or the size is missing or below 1;
    NonFiniteInput where the weights, perturbed losses or activations are not finite.
    """
    if selection in (Selection.L_FOCI, Selection.L_FOCI_BATCH):
        blanket = select_blanket(
            objective,
            theta,
            removed,
            perturbation=perturbation or GaussianPerturbation(),
            perturbations=perturbations,
            seed=seed,
            batch=selection is Selection.L_FOCI_BATCH,
            options=_limited(options or BlanketOptions(), size),
            threads=threads,
            on_progress=on_progress,
        )
        return Block(selection, blanket.indices, blanket.slices, blanket.candidates, blanket.unsliced, blanket=blanket)
    slices, prepared = (None, removed) if selection is Selection.FULL else candidate_slices(objective, theta, removed)
    if slices is None:
        block = Block(selection, None)
    elif size is None:
        raise ConfigurationError(
            f"Selection {selection.value} needs a size.", remedy="Give the number of parameters of the block to match."
        )
    elif selection is Selection.RANDOM:
        block = _of_size(selection, slices, _shuffled(slices.slices, seed), size)
    else:
        norms = slice_norms(slices, gradient_sum(objective, theta, prepared))
        # Sorting is stable: equal norms stay in the module's order.
        ranked = sorted(slices.slices, key=lambda one: -norms[one])
        block = _of_size(selection, slices, ranked, size)
        block = replace(block, norms=tuple(norms[one] for one in block.slices))
    if on_progress is not None:
        on_progress(1.0)
    return block


def slice_norms(slices: SliceMap, vector: Tensor) -> dict[Slice, float]:
    """The Euclidean norm of a (d,) vector's part on each slice's parameters."""
    squares = vector.detach().to("cpu", torch.float64).square()
    return {one: math.sqrt(total) for one, total in slice_totals(slices, squares).items()}


def _limited(options: BlanketOptions, size: int | None) -> BlanketOptions:
    if size is None:
        return options
    limit = size if options.max_parameters is None else min(size, options.max_parameters)
    return replace(options, max_parameters=limit)


def _shuffled(slices: Sequence[Slice], seed: int) -> list[Slice]:
    # A stream of its own beside those of `select_blanket`.
    generator = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(2,)))
    return [slices[place] for place in generator.permutation(len(slices))]


def _of_size(selection: Selection, slices: SliceMap, ranked: Sequence[Slice], size: int) -> Block:
    taken = set(within_size(slices, ranked, size))
    chosen = tuple(one for one in slices.slices if one in taken)
    return Block(selection, slices.indices(chosen), chosen, len(slices.slices), slices.unsliced)
