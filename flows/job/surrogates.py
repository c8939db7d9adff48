"""The brief trainings beside a removal: the surrogate that predicts retraining, and the auditors that judge.

Axes: d trained parameters.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.model.samples import Samples
from oubli.components.model.state import ModelState
from oubli.components.progress import Progress
from oubli.components.removal.descent import Checkpoints
from oubli.components.removal.matching import MatchingPlan
from oubli.components.removal.surrogate import SurrogatePlan, TrainingSettings, train_surrogate
from oubli.flows.job.facts import Stage
from oubli.flows.job.materials import Materials
from oubli.registry.models.weights import load_weights, save_weights
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.removals.work_area import WorkArea
from oubli.registry.storage.digests import json_digest
from oubli.registry.storage.scratch import temporary_folder

KEEP_EVERY_S = 30.0
"""Seconds from one checkpoint to the next: what a kill may cost. What takes less writes none."""

_BUFFER = "buffer."
_DIGITS = 8


def surrogate_plan(settings: TrainingSettings, config: UnlearnConfig) -> SurrogatePlan:
    """How a surrogate is trained: shorter than training in any case."""
    asked = config.surrogate_epochs or SurrogatePlan.epochs
    return SurrogatePlan(settings, epochs=max(1, min(asked, settings.epochs - 1)))


def matching_plan(config: UnlearnConfig) -> MatchingPlan:
    """How the model is moved."""
    return MatchingPlan(steps=config.matching_steps or MatchingPlan.steps)


def samples_seen(plan: SurrogatePlan, n: int) -> int:
    """Samples in all batches of a surrogate on n retained ones."""
    batches = plan.batches(n)
    passes, rest = divmod(plan.steps(n), len(batches))
    return passes * n + sum(batches[:rest])


@dataclass(frozen=True)
class BriefTraining:
    """One of them, whose checkpoints are kept in the work area.

    Attributes:
        stage: The stage that it belongs to.
        name: Among the stage's trainings.
        fresh_seed: Of the initial weights; None for those that the original's training began with.
        seed: Of the order of samples.
    """

    stage: Stage
    name: str
    plan: SurrogatePlan
    fresh_seed: int | None
    seed: int

    def run(self, materials: Materials, retained: Samples, on_progress: Progress | None) -> ModelState:
        """The trained state of `materials.objective`.

        Raises:
            NumericalError: Training diverges.
        """
        return train_surrogate(
            materials.objective,
            materials.theta,
            materials.part_of(materials.model.recipe.untrained(self.fresh_seed)),
            retained,
            self.plan,
            seed=self.seed,
            checkpoints=kept_checkpoints(materials.job.area, self.stage, f"{self.name}-{_digest(self.plan)}"),
            on_progress=on_progress,
        )


def kept_checkpoints(area: WorkArea, stage: Stage, name: str, every: int = 1) -> Checkpoints:
    """Checkpoints in a stage's folder of the work area, at most one each KEEP_EVERY_S seconds.

    Args:
        area: Of the removal.
        stage: Whose computation it is; its checkpoints go when it is finished.
        name: Of what is computed, with whatever another run of the stage might do otherwise.
        every: Units of work between two looks at the clock.
    """
    file = f"{name}.safetensors"
    with area.kept(stage, file) as path:
        resume = None if path is None else load_weights(path)
    last = time.monotonic()

    def save(state: dict[str, Tensor]) -> None:
        nonlocal last
        if time.monotonic() - last < KEEP_EVERY_S:
            return
        with temporary_folder() as folder:
            save_weights(state, folder / file)
            area.keep(stage, file, folder / file)
        last = time.monotonic()

    return Checkpoints(save, every, resume)


def state_tensors(state: ModelState) -> dict[str, Tensor]:
    """A state as tensors by name."""
    return {"theta": state.theta} | {f"{_BUFFER}{name}": value for name, value in state.buffers.items()}


def state_of(tensors: dict[str, Tensor], device: torch.device) -> ModelState:
    """The state that `state_tensors` gave, on a device."""
    moved = {name: value.to(device) for name, value in tensors.items()}
    theta = moved.pop("theta")
    return ModelState(theta, {name.removeprefix(_BUFFER): value for name, value in moved.items()})


def _digest(plan: SurrogatePlan) -> str:
    """Of the plan: a state of another one is no use."""
    return json_digest({"plan": repr(plan)})[:_DIGITS]
