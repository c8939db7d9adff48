"""One Newton step before its damping is chosen, and after.

Axes: d trained parameters, d_P of them in the block P.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from oubli.components.model.objective import Objective
from oubli.components.model.samples import SampleSource
from oubli.components.solvers import Solution, System


@dataclass(frozen=True)
class Move:
    """Where a step leads with one damping.

    Attributes:
        theta: (d,) weights after the step.
        solution: Of the step's system.
        damping: That was added to the diagonal, beside l2.
        tries: Dampings tried for it, this one included.
    """

    theta: Tensor
    solution: Solution
    damping: float
    tries: int = 1


@dataclass(frozen=True)
class NewtonStep:
    """A step x on the block that solves (A + (l2 + damping) I) x = right[P], and what it is judged by.

    Attributes:
        objective: F, whose l2 is added to the damping.
        theta: (d,) weights before the step.
        indices: (d_P,) int64, the block.
        right: (d,) minus the gradient that the step follows.
        system: The curvature A, (d_P, d_P).
        gradient: (d,) gradient of F over the retained samples at theta.
        retained: The retained samples; None where they are not to be read.
    """

    objective: Objective
    theta: Tensor
    indices: Tensor
    right: Tensor
    system: System
    gradient: Tensor
    retained: SampleSource | None

    def move(self, damping: float) -> Move:
        """The step with this damping.

        Raises:
            IndefiniteCurvature: The damped curvature is not positive definite.
            NumericalError: Its system is not solved to the tolerance.
        """
        solution = self.system.solve(self.right[self.indices], self.objective.l2 + damping)
        return Move(self.theta.index_add(0, self.indices, solution.x), solution, damping)
