"""Removal by matching: from the surrogate's outputs to targets, and the model moved there.

Axes: d trained parameters.

The parent is matched on every sample removed since the original was trained, and held to the original's outputs on the
retained ones, so that the tenth removal of a chain does what one removal of all ten would.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from oubli.components.errors import NumericalError
from oubli.components.model.state import ModelState, output_table
from oubli.components.progress import Progress
from oubli.components.removal.matching import MatchingData, MatchingPlan, match_targets
from oubli.components.removal.targets import hardness, removal_targets
from oubli.flows.job.facts import (
    CARRIERS,
    NO_DAMPING,
    ORIGINAL_OUTPUTS,
    SURROGATE,
    WEIGHTS,
    BlockFacts,
    Matched,
    Stage,
    SurrogateFacts,
    Unsolved,
)
from oubli.flows.job.materials import Materials
from oubli.flows.job.original import Original, original
from oubli.flows.job.surrogates import kept_checkpoints, matching_plan, state_of
from oubli.registry.models.original_outputs import write_outputs
from oubli.registry.models.weights import load_weights, save_weights

_LOOKS = 5
"""How often the steps look whether it is time for a checkpoint."""


def matching_update(
    materials: Materials, block: Tensor | None, folder: Path, on_progress: Progress | None
) -> Matched | Unsolved:
    """Write the new state dict and the table of the original's outputs; or only why there is none."""
    started = time.perf_counter()
    surrogate = materials.job.area.require(Stage.SURROGATE, SurrogateFacts).facts
    if surrogate.failed:
        return _unsolved(started, f"The surrogate: {surrogate.failed}")
    teacher, plan = original(materials), matching_plan(materials.job.config)
    try:
        data = _data(materials, teacher)
        state = _moved(materials, data, plan, block, on_progress)
    except NumericalError as error:
        return _unsolved(started, error.problem)
    save_weights(materials.with_state(state).state_dict(), folder / WEIGHTS)
    write_outputs(teacher.table, folder / ORIGINAL_OUTPUTS)
    inside, outside = _movement(materials, state.theta - materials.theta)
    parameters = materials.objective.space.d
    moving = parameters if block is None else len(block)
    return Matched(
        seconds=time.perf_counter() - started,
        steps=plan.steps,
        rate=plan.rate(len(data.removed), moving / parameters),
        surrogate_epochs=surrogate.epochs,
        removed_in_all=len(data.removed),
        retained=len(data.retained),
        held_out=len(teacher.table.held_out),
        original=teacher.source,
        block=moving,
        moved_in_blanket=inside,
        moved_elsewhere=outside,
    )


def _data(materials: Materials, teacher: Original) -> MatchingData:
    """What the model is moved to, on removed and on retained samples."""
    loss, table, removed = materials.objective.loss, teacher.table, materials.removed_in_all
    with materials.job.area.open(Stage.SURROGATE, SURROGATE) as path:
        state = state_of(load_weights(path), materials.theta.device)
    surrogate = state.within(materials.objective)
    on_removed, on_held_out, on_retained = (
        output_table(surrogate, state.theta, source) for source in (removed, materials.held_out, teacher.retained)
    )
    targets = removal_targets(
        loss, surrogate_removed=on_removed, surrogate_held_out=on_held_out, original_held_out=table.held_out
    )
    weights = hardness(loss, original=table.retained, surrogate=on_retained)
    return MatchingData(removed, targets, teacher.retained, table.retained, weights)


def _moved(
    materials: Materials, data: MatchingData, plan: MatchingPlan, block: Tensor | None, on_progress: Progress | None
) -> ModelState:
    every = max(1, plan.steps // _LOOKS)
    return match_targets(
        materials.objective,
        materials.theta,
        data,
        plan,
        seed=materials.job.config.seed,
        block=block,
        checkpoints=kept_checkpoints(materials.job.area, Stage.UPDATE, f"matching-{plan.steps}", every),
        on_progress=on_progress,
    )


def _movement(materials: Materials, moved: Tensor) -> tuple[float | None, float | None]:
    """Root mean square of how far (d,) the parameters of the blanket moved, and the others; None without a blanket."""
    stage = materials.job.area.require(Stage.BLANKET, BlockFacts)
    indices = materials.block()
    if CARRIERS in stage.files:
        with materials.job.area.open(Stage.BLANKET, CARRIERS) as path:
            indices = load_weights(path)["indices"]
    if indices is None or len(indices) in (0, len(moved)):
        return None, None
    inside = torch.zeros(len(moved), dtype=torch.bool)
    inside[indices] = True
    squares = moved.cpu().square()
    return float(squares[inside].mean().sqrt()), float(squares[~inside].mean().sqrt())


def _unsolved(started: float, detail: str) -> Unsolved:
    return Unsolved(seconds=time.perf_counter() - started, curvature=None, damping=NO_DAMPING, detail=detail)
