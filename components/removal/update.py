"""What a removal update gives: the weights, and how they were found.

Axes: n training samples, m of them removed, d trained parameters.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from oubli.components.removal.step import Move
from oubli.components.solvers import SolverName


@dataclass(frozen=True)
class StepReport:
    """How one step was taken; norms are of the full gradient of F_R, not only the block's.

    Attributes:
        gradient_before: Norm before the step.
        gradient_after: Norm after it; None where it was not measured, as that takes a pass over the retained samples.
        damping: The one that was taken, the last of those tried.
        tries: Dampings tried.
        solver: Of the last solve.
        iterations: Of the last solve.
        residual: Of the last solve, relative.
        step_norm: Norm of the step.
        seconds: For the curvature, the solves and the gradients after them.
        passes: Over the retained samples, for gradients and products; 0 where they were not counted.
        bound: ||grad F_R|| / l2 after the step, which the distance to the retained minimiser of a convex objective does
            not exceed; None where no step was to reach one.
    """

    gradient_before: float
    gradient_after: float | None
    damping: float
    tries: int
    solver: SolverName
    iterations: int
    residual: float
    step_norm: float
    seconds: float
    passes: int = 0
    bound: float | None = None

    @classmethod
    def of(cls, move: Move, before: float, after: float | None, started: float) -> StepReport:
        """The report of a move, with the gradient's norms around it; started: by `time.perf_counter`."""
        return cls(
            gradient_before=before,
            gradient_after=after,
            damping=move.damping,
            tries=move.tries,
            solver=move.solution.solver,
            iterations=move.solution.iterations,
            residual=move.solution.residual,
            step_norm=float(move.solution.x.norm()),
            seconds=time.perf_counter() - started,
        )


@dataclass(frozen=True)
class RemovalUpdate:
    """The weights after a removal.

    Where model_gradient is not small against removal_gradient, the step forgets less than it disturbs.

    Attributes:
        theta: (d,) weights after the last step.
        steps: A report of every step.
        model_gradient: ||grad F(w*)|| over all n samples, 0 at a minimiser, which the formula takes w* for.
        removal_gradient: ||(1/(n-m)) sum_{i removed} (grad loss(w*, z_i) + l2 w*)||, what the removal adds to it.
    """

    theta: Tensor
    steps: tuple[StepReport, ...]
    model_gradient: float
    removal_gradient: float


def model_gradient(gradient: Tensor, pull: Tensor, retained: int, removed: int) -> float:
    """||grad F|| over all n samples.

    Args:
        gradient: (d,) gradient of F over the retained samples.
        pull: (d,) `RemovedGradient.pull`, divided by n - m.
        retained: n - m.
        removed: m.
    """
    return float(((gradient + pull) * (retained / (retained + removed))).norm())
