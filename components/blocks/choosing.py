"""Which block of the parameters an update moves: the ways to choose it, behind one entry.

Axes: m removed samples, N perturbed copies, p slices, d trained parameters, d_P of them in the block.

L-FOCI (`blanket`) is the method; the largest removed gradient and chance are what it must beat at an equal size.
All ways choose among the same p slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from oubli.components.blocks.blanket import Blanket, BlanketPlan, candidate_slices, select_blanket
from oubli.components.blocks.block_choice import BlockChoice as BlockChoice
from oubli.components.blocks.slice_sizes import slice_totals, within_size
from oubli.components.blocks.slices import Slice, SliceMap
from oubli.components.errors import ConfigurationError
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.progress import Progress


@dataclass(frozen=True)
class Block:
    """A block, and what it was chosen by.

    Attributes:
        choice: how it was chosen.
        indices: (d_P,) sorted flat parameter indices, int64 on the CPU; None for all d. May be empty where L-FOCI
            selects nothing.
        slices: the chosen ones, in the module's order; empty for FULL.
        candidates: p; 0 for FULL.
        unsliced: names of parameter tensors that the block could not contain.
        blanket: L-FOCI's evidence; None where another way chose.
        norms: the gradient norm of each slice of TOP_GRADIENT; None where another way chose.
    """

    choice: BlockChoice
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
    choice: BlockChoice,
    objective: Objective,
    theta: Tensor,
    removed: Samples,
    plan: BlanketPlan | None = None,
    *,
    seed: int,
    size: int | None = None,
    on_progress: Progress | None = None,
) -> Block:
    """The block of parameters that an update of the removed samples moves.

    Args:
        choice: how the block is chosen.
        objective: the module and its loss.
        theta: (d,) weights to choose at.
        removed: m samples.
        plan: how L-FOCI perturbs and selects; None for the paper's. The other ways do not read it.
        seed: of L-FOCI and of RANDOM.
        size: the block's number of parameters, as near as whole slices come to it from below (`within_size`).
            TOP_GRADIENT and RANDOM need one; with L-FOCI it is an upper limit beside `plan.union.max_parameters`; FULL
            has none.
        on_progress: called with the share that is done.

    Raises:
        ConfigurationError: nothing is removed, no layer can be sliced, or the size is missing or below 1.
        NonFiniteInput: the weights, perturbed losses or activations are not finite.
    """
    if choice in (BlockChoice.L_FOCI, BlockChoice.L_FOCI_BATCH):
        blanket = select_blanket(
            objective,
            theta,
            removed,
            _limited(plan or BlanketPlan(), size),
            seed=seed,
            batch=choice is BlockChoice.L_FOCI_BATCH,
            on_progress=on_progress,
        )
        return Block(choice, blanket.indices, blanket.slices, blanket.candidates, blanket.unsliced, blanket=blanket)
    if choice is BlockChoice.FULL:
        block = Block(choice, None)
    else:
        slices, prepared = candidate_slices(objective, theta, removed)
        if size is None:
            raise ConfigurationError(
                f"Selection {choice.value} needs a size.", remedy="Give the number of parameters of the block to match."
            )
        if choice is BlockChoice.RANDOM:
            block = _of_size(choice, slices, _shuffled(slices.slices, seed), size)
        else:
            block = _of_top_gradient(slices, gradient_sum(objective, theta, prepared), size)
    if on_progress is not None:
        on_progress(1.0)
    return block


def slice_norms(slices: SliceMap, vector: Tensor) -> dict[Slice, float]:
    """The Euclidean norm of a vector's part on each slice's parameters.

    Args:
        slices: p slices.
        vector: (d,).
    """
    squares = vector.detach().to("cpu", torch.float64).square()
    return {chosen: math.sqrt(total) for chosen, total in slice_totals(slices, squares).items()}


def _limited(plan: BlanketPlan, size: int | None) -> BlanketPlan:
    """The plan with `size` as a further limit of the block's parameters."""
    if size is None:
        return plan
    given = plan.union.max_parameters
    limit = size if given is None else min(size, given)
    return replace(plan, union=replace(plan.union, max_parameters=limit))


def _shuffled(slices: Sequence[Slice], seed: int) -> list[Slice]:
    # A stream of its own beside those of `select_blanket`.
    generator = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(2,)))
    return [slices[position] for position in generator.permutation(len(slices))]


def _of_top_gradient(slices: SliceMap, gradient: Tensor, size: int) -> Block:
    """The slices on which the (d,) gradient is largest."""
    norms = slice_norms(slices, gradient)
    # Sorting is stable: equal norms stay in the module's order.
    ranked = sorted(slices.slices, key=lambda candidate: -norms[candidate])
    block = _of_size(BlockChoice.TOP_GRADIENT, slices, ranked, size)
    return replace(block, norms=tuple(norms[chosen] for chosen in block.slices))


def _of_size(choice: BlockChoice, slices: SliceMap, ranked: Sequence[Slice], size: int) -> Block:
    taken = set(within_size(slices, ranked, size))
    chosen = tuple(candidate for candidate in slices.slices if candidate in taken)
    return Block(choice, slices.indices(chosen), chosen, len(slices.slices), slices.unsliced)
