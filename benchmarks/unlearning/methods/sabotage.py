"""Updates that a gate must refuse."""

from __future__ import annotations

import dataclasses

import torch

from benchmarks.unlearning.methods.matching import match, match_all
from benchmarks.unlearning.methods.task import Task, state_of
from oubli.components.model.state import ModelState

TIMES = 4.0
"""How far an overshoot goes, in matching's own steps."""


def wrong_samples(task: Task) -> ModelState:
    """Matching, of as many other samples; those that were to go stay in training."""
    retained = task.removal.retained_positions
    order = torch.randperm(len(retained), generator=task.generator())[: len(task.removed)]
    others = dataclasses.replace(task.removal, positions=retained[order].sort().values)
    mistaken = dataclasses.replace(task, removal=others)
    return match(mistaken, mistaken.prediction)


def wrong_targets(task: Task) -> ModelState:
    """Matching in the other direction: to as much beyond the original model as the targets lie before it."""
    prediction = task.prediction
    at = task.objective.outputs(task.objective.space.unflatten(task.theta), task.objective.prepare(task.removed).inputs)
    mirrored = dataclasses.replace(prediction, targets=2 * at.detach() - prediction.targets)
    return match(task, mirrored)


def overshoot(task: Task) -> ModelState:
    """Matching's step, several times as far."""
    matched = match_all(task)
    return dataclasses.replace(matched, theta=torch.lerp(task.theta, matched.theta, TIMES))


def random_step(task: Task) -> ModelState:
    """As far as matching, in a random direction of each parameter tensor's own scale."""
    moved = match_all(task).theta - task.theta
    noise = torch.randn(len(moved), generator=task.generator()) * task.theta.abs()
    return ModelState(task.theta + noise * moved.norm() / noise.norm(), ModelState.of(task.objective).buffers)


def random_weights(task: Task) -> ModelState:
    """A network that was never trained."""
    return state_of(task.bench, task.bench.build(30 + task.seed).eval())
