"""The Newton removal update, on all parameters or on a block of them.

Axes: n training samples, m removed samples, n - m retained samples, d trained parameters, d_P of them in the block P.

With F_R the objective over the retained samples R, and w* a minimiser of F over all n,

    grad F_R(w*) = -(1/(n-m)) * sum_{i removed} ( grad loss(w*, z_i) + l2 * w* ),

so one Newton step on F_R needs gradients of the removed samples alone:

    w-_P = w*_P + (H_R[P,P] + (l2 + damping) I)^{-1} (1/(n-m)) * sum_{i removed} ( grad loss(w*, z_i) + l2 * w* )_P.

(Sekhari et al., NeurIPS 2021; Guo et al., ICML 2020; on a block: Mehta et al., CVPR 2022.) H_R is a curvature of the
mean loss over R, the generalised Gauss-Newton matrix unless another is given. Leaving out the l2 * w* of a removed
sample ruins the update: its share of the regulariser's pull goes with it. Later steps take the true gradient of F_R
where the previous step ended, and the curvature there; on a convex objective they remove what the first step's
linearisation left. There, each of several steps is followed by CORRECTIONS with the same curvature and the gradient
where it ended, each of which costs one solve and raises the order by one (Shamanskii, Ukrainian Math. J. 19, 1967). A
single step stays the formula above.

`newton_removal` takes the removed samples as one batch. one_at_a_time.py takes them in groups with the curvature
refreshed in between, from_snapshot.py without a pass over the retained samples.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from torch import Tensor

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.kinds import CurvatureBuilder
from oubli.components.errors import ConfigurationError
from oubli.components.model.gradients import RemovedGradient, objective_gradient
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import SampleSource
from oubli.components.progress import Progress
from oubli.components.removal.checks import check_counts, check_gradient
from oubli.components.removal.damping import Damping
from oubli.components.removal.step import NewtonStep
from oubli.components.removal.update import RemovalUpdate, StepReport, model_gradient

CORRECTIONS = 2
"""After each of several steps on a convex objective: they cost a gradient each, where a step costs a curvature."""


@dataclass(frozen=True)
class NewtonPlan:
    """How the steps are taken.

    Attributes:
        steps: How many, at least 1.
        damping: What is added to the curvature's diagonal beside l2: `Undamped` for a convex objective, `Least` for a
            network, or `Fixed`.
        convex: Whether the objective is convex: each of several steps is then followed by corrections.
        curvature: Makes the curvature of a source on a block.
        curvature_samples: Retained samples that the curvature is estimated from; None takes all.

    Raises:
        ConfigurationError: `steps` is less than 1.
    """

    steps: int
    damping: Damping
    convex: bool
    curvature: CurvatureBuilder = GaussNewton
    curvature_samples: SampleSource | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigurationError(f"steps is {self.steps}; at least 1 is needed.", remedy="Use 1 or 2 steps.")


def newton_removal(
    objective: Objective,
    theta: Tensor,
    retained: SampleSource,
    removed: RemovedGradient,
    plan: NewtonPlan,
    *,
    block: Tensor | None = None,
    on_progress: Progress | None = None,
) -> RemovalUpdate:
    """Weights of the model without the removed samples, by Newton steps from `theta`, which is not changed.

    Args:
        objective: The model, its loss and its l2.
        theta: (d,) weights that training ended with.
        retained: The samples that stay.
        removed: The gradient of those that go, at theta.
        plan: How many steps, with which curvature and damping.
        block: (d_P,) int64 flat parameter indices in rising order; None for all.
        on_progress: Told the fraction of steps taken.

    Raises:
        ConfigurationError: A set is empty, or the block is no index set.
        IndefiniteCurvature: The curvature is not positive definite with the (largest) damping.
        NumericalError: Its system is not solved to the tolerance with the (largest) damping.
        NonFiniteInput: Weights, gradients or the curvature are not finite.
    """
    objective.check(theta)
    check_counts(removed.count, len(retained))
    gradient = objective_gradient(objective, theta, retained)
    check_gradient(gradient)
    pull = removed.pull(objective, theta) / len(retained)
    whole = model_gradient(gradient, pull, len(retained), removed.count)
    reports = []
    for number in range(plan.steps):
        started = time.perf_counter()
        before = float(gradient.norm())
        # At w* the retained gradient is made of the removed samples alone; later it is what the last step left.
        step = _step(plan, objective, theta, retained, -gradient if number else pull, gradient, block)
        move = plan.damping.step(step)
        theta, gradient = move.theta, objective_gradient(objective, move.theta, retained)
        if plan.convex and plan.steps > 1:
            theta, gradient = _corrected(replace(step, theta=theta, gradient=gradient), retained, move.damping)
        reports.append(StepReport.of(move, before, float(gradient.norm()), started))
        if on_progress is not None:
            on_progress((number + 1) / plan.steps)
    return RemovalUpdate(theta, tuple(reports), whole, float(pull.norm()))


def _step(
    plan: NewtonPlan,
    objective: Objective,
    theta: Tensor,
    retained: SampleSource,
    right: Tensor,
    gradient: Tensor,
    block: Tensor | None,
) -> NewtonStep:
    """The step from theta with the plan's curvature there."""
    check_gradient(right)
    restriction = Restriction(objective, theta, block)
    source = retained if plan.curvature_samples is None else plan.curvature_samples
    system = plan.curvature(restriction, source).system()
    return NewtonStep(objective, theta, restriction.indices, right, system, gradient, retained)


def _corrected(step: NewtonStep, retained: SampleSource, damping: float) -> tuple[Tensor, Tensor]:
    """Weights and their gradient after further solves with the same system, as far as they lower the gradient."""
    theta, gradient = step.theta, step.gradient
    for _ in range(CORRECTIONS):
        moved = replace(step, theta=theta, right=-gradient).move(damping).theta
        after = objective_gradient(step.objective, moved, retained)
        if not float(after.norm()) < float(gradient.norm()):
            break
        theta, gradient = moved, after
    return theta, gradient
