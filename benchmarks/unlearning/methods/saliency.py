"""Methods that choose weights by the removed samples' gradients: selective synaptic dampening, and SalUn.

Axes: d trained parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad, vmap

from benchmarks.unlearning.methods.task import Task, state_of
from benchmarks.unlearning.problems import train
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.state import ModelState

DAMPENING, SELECTION = 1.0, 100.0
"""SSD's lambda and alpha: how far a weight shrinks, and from which ratio of importances on."""

IMPORTANCE_SAMPLES, IMPORTANCE_CHUNK = 1000, 50

SALIENT, SALIENCY_RATE = 0.5, 2.0
"""SalUn's share of the weights that move, and its rate in units of training's peak rate."""


def dampening(task: Task) -> ModelState:
    """Selective synaptic dampening (Foster et al., AAAI 2024): weights that matter more to U than to all shrink.

    Importance is the mean squared gradient of a sample's loss; that to all is taken from some of them.
    """
    everything = task.removal.train
    order = torch.randperm(len(everything), generator=task.generator())[:IMPORTANCE_SAMPLES]
    whole = _importance(task.objective, task.theta, everything.select(order))
    removed = _importance(task.objective, task.theta, task.removed)
    shrunk = (DAMPENING * whole / removed.clamp(min=1e-30)).clamp(max=1.0) * task.theta
    theta = torch.where(removed > SELECTION * whole, shrunk, task.theta)
    return ModelState(theta, ModelState.of(task.objective).buffers)


def _importance(objective: Objective, theta: Tensor, samples: Samples) -> Tensor:
    """(d,) mean squared gradients."""

    def loss(weights: Tensor, given: Tensor, label: Tensor) -> Tensor:
        return objective.losses(weights, Samples(given[None], label[None]))[0]

    total = torch.zeros_like(theta)
    for batch in samples.batches(IMPORTANCE_CHUNK):
        prepared = objective.prepare(batch)
        gradients = vmap(grad(loss), (None, 0, 0))(theta, prepared.inputs, prepared.labels)
        total += gradients.square().sum(0)
    return total / len(samples)


def random_labels(task: Task) -> ModelState:
    """SalUn (Fan et al., ICLR 2024): fine-tuning on retained samples and on removed ones with random other labels,
    of the weights with the largest removed gradient."""
    objective, removed, retained = task.objective, task.removed, task.retained
    size = gradient_sum(objective, task.theta, objective.prepare(removed)).abs()
    mask = (size >= size.quantile(1 - SALIENT)).to(size.dtype)
    classes = task.bench.classes
    shift = torch.randint(1, classes, (len(removed),), generator=task.generator())
    labels = torch.cat([(removed.labels + shift) % classes, retained.labels])
    samples = Samples(torch.cat([removed.inputs, retained.inputs]), labels)
    module, masks = task.module(), objective.space.unflatten(mask)
    for name, parameter in module.named_parameters():
        parameter.register_hook(lambda gradient, own=masks[name]: gradient * own)
    trained = train(module, samples, task.short(SALIENCY_RATE), seed=40 + task.seed)
    return state_of(task.bench, trained)
