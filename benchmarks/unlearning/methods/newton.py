"""Damped Newton steps with the generalised Gauss-Newton matrix, on all parameters or on a block of them.

Axes: n training samples, m of them removed, d_P parameters of the block.

The removed samples' weight a goes from 1 to 0 in K equal steps. At a minimiser of the objective with weight a + 1/K,
the gradient of that with weight a is made of the removed samples alone, so step k takes their gradient anew where the
last one ended,

    w <- w + (G + (l2 + damping) I)^{-1} (1/K) / (n - m + a m) * sum_{i in U} ( grad loss(w, z_i) + l2 w ),

G being the curvature of the retained samples, and of the removed ones with the weight they have left. K = 1 is the
step of `components.removal.newton`. Full steps, of which each takes all of the removed samples' gradient, overshoot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.unlearning.methods.task import Task
from oubli.components.blocks.choosing import BlockChoice, select_block
from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.model.state import ModelState


@dataclass(frozen=True)
class Steps:
    """How many, and of each: retained samples of its curvature, products of conjugate gradients, and the damping."""

    count: int
    samples: int
    iterations: int
    damping: float


ONE = Steps(1, 500, 20, 3e-2)
MANY = Steps(8, 200, 6, 3e-2)


def one_step(task: Task) -> ModelState:
    """On all parameters."""
    return small_steps(task, ONE)


def many_steps(task: Task) -> ModelState:
    """Several small ones."""
    return small_steps(task, MANY)


def on_blanket(task: Task) -> ModelState:
    """One step on L-FOCI's block."""
    return small_steps(task, ONE, block=task.blanket.indices)


def on_random(task: Task) -> ModelState:
    """One step on a random block of the same size."""
    return _on_rival(task, BlockChoice.RANDOM)


def on_top_gradient(task: Task) -> ModelState:
    """One step on a block of the same size, of the largest gradients."""
    return _on_rival(task, BlockChoice.TOP_GRADIENT)


def wrong_sign(task: Task) -> ModelState:
    """A saboteur: K steps that fit the removed samples more closely."""
    return small_steps(task, MANY, sign=-1.0)


def _on_rival(task: Task, choice: BlockChoice) -> ModelState:
    size = len(task.blanket.indices)
    block = select_block(choice, task.objective, task.theta, task.removed, seed=task.seed, size=size)
    return small_steps(task, ONE, block=block.indices)


def small_steps(task: Task, steps: Steps, *, block: Tensor | None = None, sign: float = 1.0) -> ModelState:
    """The weights where the steps end, with the original's buffers."""
    objective, theta = task.objective, task.theta
    removed, m, r = objective.prepare(task.removed), len(task.removed), len(task.retained)
    for number in range(1, steps.count + 1):
        left = 1 - number / steps.count
        total = r + left * m
        restriction = Restriction(objective, theta, block)
        pull = gradient_sum(objective, theta, removed) + m * objective.l2 * theta
        product = _product(task, restriction, left, samples=steps.samples)
        right = sign * pull[restriction.indices] / (steps.count * total)
        move = conjugate_gradients(product, right, objective.l2 + steps.damping, iterations=steps.iterations)
        theta = theta.index_add(0, restriction.indices, move)
    return ModelState(theta, ModelState.of(objective).buffers)


def _product(task: Task, restriction: Restriction, left: float, *, samples: int) -> Callable[[Tensor], Tensor]:
    """v -> G v, from some retained samples and, while they have weight, as large a share of the removed ones."""
    m, r = len(task.removed), len(task.retained)
    retained = _some(task, task.retained, samples)
    own = GaussNewton(restriction, retained).matvec
    if left <= 0:
        return own
    others = GaussNewton(restriction, _some(task, task.removed, max(8, samples * m // r))).matvec
    share = left * m / (r + left * m)
    return lambda vector: (1 - share) * own(vector) + share * others(vector)


def _some(task: Task, samples: Samples, count: int) -> Samples:
    return samples.select(torch.randperm(len(samples), generator=task.generator())[:count])


def conjugate_gradients(product: Callable[[Tensor], Tensor], right: Tensor, shift: float, *, iterations: int) -> Tensor:
    """What so many iterations from zero make of (A + shift I) x = right; fewer where the residual is gone."""
    x, residual = torch.zeros_like(right), right.clone()
    direction, squared = residual.clone(), float(residual.dot(residual))
    least = torch.finfo(right.dtype).eps ** 2 * squared
    for _ in range(iterations):
        if squared <= least:
            break
        along = product(direction) + shift * direction
        length = squared / float(direction.dot(along))
        x, residual = x + length * direction, residual - length * along
        previous, squared = squared, float(residual.dot(residual))
        direction = residual + squared / previous * direction
    return x
