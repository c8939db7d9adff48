"""Retraining of a convex model to a given distance from its minimiser: what a removal is to be quicker than.

Axes: d parameters.

Both opponents take the passes that the removal takes (`convex_passes`), and stop by the true distance, which only the
benchmark knows and which is not counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.curvature.convex_passes import ConvexPasses

MEMORY = 30
"""Steps that L-BFGS remembers."""


@dataclass
class Watch:
    """CPU seconds of this thread while it runs, until the weights are near enough or too many have passed."""

    distance: Callable[[Tensor], float]
    near: float
    limit: float
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._started = time.thread_time()

    def ended(self, theta: Tensor) -> bool:
        self.seconds += time.thread_time() - self._started
        self.reached = self.distance(theta) <= self.near
        self._started = time.thread_time()
        return self.reached or self.seconds > self.limit


def newton_cg(passes: ConvexPasses, theta: Tensor, watch: Watch) -> None:
    """Newton steps by conjugate gradients (Steihaug's forcing sequence min(.1, sqrt ||g||)), halved where they
    overshoot."""
    gradient = passes.gradient(theta)
    while not watch.ended(theta):
        norm = float(gradient.norm())
        step, left = torch.zeros_like(theta), -gradient
        direction, energy = left, left @ left
        while math.sqrt(float(energy)) > min(0.1, math.sqrt(norm)) * norm:
            product = passes.product(direction)
            length = energy / (direction @ product)
            step, left = step + length * direction, left - length * product
            energy, last = left @ left, energy
            direction = left + (energy / last) * direction
            if watch.ended(theta):
                return
        theta, gradient = _line(passes, theta, gradient, step)


def lbfgs(passes: ConvexPasses, theta: Tensor, watch: Watch) -> None:
    """L-BFGS (Nocedal 1980), its steps judged by slopes: near a minimum values are lost in rounding."""
    gradient, memory = passes.gradient(theta), []
    while not watch.ended(theta):
        right, shares = -gradient, []
        for step, change in reversed(memory):
            share = (step @ right) / (step @ change)
            right = right - share * change
            shares.append(share)
        if memory:
            step, change = memory[-1]
            right = right * ((step @ change) / (change @ change))
        else:
            right = right / max(1.0, float(gradient.norm()))
        for (step, change), share in zip(memory, reversed(shares), strict=True):
            right = right + (share - (change @ right) / (step @ change)) * step
        after, slope = _line(passes, theta, gradient, right)
        memory = [*memory[1 - MEMORY :], (after - theta, slope - gradient)]
        theta, gradient = after, slope


def _line(passes: ConvexPasses, theta: Tensor, gradient: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Where a step leads that is shortened until it goes less than half as far beyond the valley, and the gradient."""
    slope, length = float(gradient @ step), 1.0
    while True:
        moved = theta + length * step
        after = passes.gradient(moved)
        end = float(after @ step)
        if not end > -0.5 * slope:
            return moved, after
        length *= slope / (slope - end)
