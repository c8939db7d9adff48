"""Methods that train for a while: fine-tuning, with and without an anchor, a short retraining, NegGrad+ and SCRUB."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.unlearning.methods.task import Task, state_of
from benchmarks.unlearning.problems import Batch, train
from oubli.components.model.state import ModelState, output_table

RATES = (0.5, 1.0, 2.0)
"""Of fine-tuning, in units of training's peak rate."""

ANCHOR, ANCHOR_RATE = 0.3, 2.0
"""Weight of the divergence from the original model, and the rate."""

NEGATIVE_SHARE, NEGATIVE_RATE = 0.02, 1.0
"""Of the removed samples' loss in NegGrad+, and the rate."""

SCRUB_RATE, SCRUB_KEPT, SCRUB_RISES, SCRUB_BATCH = SCRUB = (1.0, 1.0, 1, 16)
"""The rate, the weight of the divergence beside cross-entropy, how many epochs begin with a rise on the removed
samples, and the batch of these rises."""


def fine_tuning(task: Task, rate_factor: float) -> ModelState:
    """On the retained samples, from a high rate to 0."""
    module = train(task.module(), task.retained, task.short(rate_factor), seed=50 + task.seed)
    return state_of(task.bench, module)


def anchored(task: Task) -> ModelState:
    """Fine-tuning with the divergence from the original model beside it, on the retained samples."""
    started = output_table(task.objective, task.theta, task.retained)
    loss = _beside(task, started, ANCHOR)
    module = train(task.module(), task.retained, task.short(ANCHOR_RATE), seed=50 + task.seed, loss=loss)
    return state_of(task.bench, module)


def short_retraining(task: Task) -> ModelState:
    """A new network for a tenth of training's epochs."""
    fresh = task.bench.build(60 + task.seed)
    return state_of(task.bench, train(fresh, task.retained, task.short(1.0), seed=60 + task.seed))


def negative_gradient(task: Task) -> ModelState:
    """NegGrad+ (Kurmanji et al., NeurIPS 2023): down on retained samples and up on removed ones, in one step."""
    retained, removed, generator = task.retained, task.removed, task.generator()

    def loss(module: nn.Module, chosen: Tensor) -> Tensor:
        few = torch.randperm(len(removed), generator=generator)[: len(chosen)]
        inputs = torch.cat([retained.inputs[chosen], removed.inputs[few]])
        outputs = module(inputs)
        down = functional.cross_entropy(outputs[: len(chosen)], retained.labels[chosen])
        up = functional.cross_entropy(outputs[len(chosen) :], removed.labels[few])
        return (1 - NEGATIVE_SHARE) * down - NEGATIVE_SHARE * up

    module = train(task.module(), retained, task.short(NEGATIVE_RATE), seed=70 + task.seed, loss=loss)
    return state_of(task.bench, module)


def scrub(task: Task) -> ModelState:
    """SCRUB (Kurmanji et al., NeurIPS 2023): away from the original model on removed samples, back on retained ones.

    Each of the first epochs begins with one over the removed samples that raises the divergence from the original
    model; all go on with one over the retained samples, on divergence and cross-entropy.
    """
    recipe = task.short(SCRUB_RATE)
    teacher = output_table(task.objective, task.theta, task.retained)
    started = output_table(task.objective, task.theta, task.removed)
    down, module = _beside(task, teacher, SCRUB_KEPT), task.module()

    def up(student: nn.Module, chosen: Tensor) -> Tensor:
        return -_divergence(started[chosen], student(task.removed.inputs[chosen]))

    for epoch in range(recipe.epochs):
        # The last epoch's rate is a tenth, as in the authors' schedule.
        rate = recipe.peak_rate * (0.1 if epoch == recipe.epochs - 1 else 1.0)
        part = recipe.shortened(epochs=1, peak_rate=rate)
        if epoch < SCRUB_RISES:
            rise = dataclasses.replace(part, batch_size=SCRUB_BATCH)
            train(module, task.removed, rise, seed=80 + task.seed + epoch, loss=up)
        train(module, task.retained, part, seed=90 + task.seed + epoch, loss=down)
    return state_of(task.bench, module)


def _beside(task: Task, teacher: Tensor, weight: float) -> Batch:
    """Cross-entropy on the retained samples, and the divergence from the teacher's outputs on them."""
    retained = task.retained

    def loss(module: nn.Module, chosen: Tensor) -> Tensor:
        outputs = module(retained.inputs[chosen])
        fit = functional.cross_entropy(outputs, retained.labels[chosen])
        return fit + weight * _divergence(teacher[chosen], outputs)

    return loss


def _divergence(teacher: Tensor, outputs: Tensor) -> Tensor:
    """Mean KL(teacher || outputs), of logits (b, C)."""
    first, second = functional.log_softmax(teacher, 1), functional.log_softmax(outputs, 1)
    return (first.exp() * (first - second)).sum(1).mean()
