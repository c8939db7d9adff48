"""Removal by matching, on all parameters or on a block of them, at once or in a chain.

Axes: m removed samples, d trained parameters, d_P of them in a block.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from benchmarks.unlearning.methods.task import Prediction, Task, matching_plan
from oubli.components.model.state import ModelState
from oubli.components.removal.matching import MatchingData, match_targets

LINKS = 10
"""Removals of a chain."""


def match(task: Task, prediction: Prediction, block: Tensor | None = None) -> ModelState:
    """The task's model, moved to its targets."""
    data = MatchingData(task.removed, prediction.targets, task.retained, prediction.teacher, prediction.hardness)
    return match_targets(task.objective, task.theta, data, matching_plan(), seed=task.seed, block=block)


def match_all(task: Task) -> ModelState:
    """On all parameters."""
    return match(task, task.prediction)


def match_blanket(task: Task) -> ModelState:
    """On L-FOCI's block."""
    return match(task, task.prediction, task.blanket.indices)


def match_output_layer(task: Task) -> ModelState:
    """On the last linear layer."""
    return match(task, task.prediction, output_layer(task))


def output_layer(task: Task) -> Tensor:
    """Flat indices (d_P,) of the last linear layer's parameters."""
    modules = dict(task.objective.module.named_modules())
    name = [path for path, part in modules.items() if isinstance(part, nn.Linear)][-1]
    own = [parameter for parameter in task.objective.space.names if parameter.startswith(f"{name}.")]
    ranges = [task.objective.space.range_of(parameter) for parameter in own]
    return torch.cat([torch.arange(part.start, part.stop) for part in ranges]).sort().values


def chain(task: Task) -> ModelState:
    """LINKS removals one after another, each with all samples that were removed so far and a surrogate of its own.

    The teacher on the retained samples is the original model throughout.
    """
    order = task.removal.positions[torch.randperm(len(task.removal.positions), generator=task.generator())]
    state = ModelState.of(task.objective, task.theta)
    for number, end in enumerate(torch.linspace(0, len(order), LINKS + 1).round().long().tolist()[1:]):
        so_far = dataclasses.replace(task.removal, positions=order[:end].sort().values)
        link = dataclasses.replace(task, removal=so_far, seed=100 * (number + 1) + task.seed)
        # Predicted from the original, moved from where the last removal ended.
        prediction = link.prediction
        current = dataclasses.replace(link, objective=state.within(task.objective), theta=state.theta)
        state = match(current, prediction)
    return state
