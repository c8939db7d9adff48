"""The Newton removal update, on all parameters or on a block of them.

Axes: n training samples, m removed samples, n - m retained samples, d parameters, d_P of them in the block P.

With F_R the objective over the retained samples R, and w* a minimiser of F over all n,

    grad F_R(w*) = -(1/(n-m)) * sum_{i removed} ( grad loss(w*, z_i) + l2 * w* ),

so one Newton step on F_R needs gradients of the removed samples alone:

    w-_P = w*_P + (G_R[P,P] + (l2 + damping) I)^{-1} (1/(n-m)) * sum_{i removed} ( grad loss(w*, z_i) + l2 * w* )_P.

(Sekhari et al., NeurIPS 2021; Guo et al., ICML 2020; on a block: Mehta et al., CVPR 2022.) G_R is the generalised
Gauss-Newton matrix over R. Leaving out the l2 * w* of a removed sample ruins the update: its share of the
regulariser's pull goes with it. Later steps take the true gradient of F_R where the previous step ended, and the
curvature there; on a convex objective they remove what the first step's linearisation left.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.curvature.ggn import GaussNewton
from oubli.components.errors import ConfigurationError, NonFiniteInput, NumericalError
from oubli.components.gradients import RemovedGradient, objective_gradient
from oubli.components.objective import Objective
from oubli.components.progress import Progress
from oubli.components.restriction import Restriction
from oubli.components.samples import SampleSource
from oubli.components.solvers import SolverName, System, prepare_system

RELATIVE_DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Dampings to try where the objective is not convex, in units of the block's mean diagonal curvature.

The less damping, the more is forgotten, and the sooner a network's retained samples suffer. No one value is right for
every block and network (README.md has the figures), so the first that keeps the retained gradient is taken.
"""


@dataclass(frozen=True)
class StepReport:
    """One step: norms of the full gradient of F_R (not only the block's) before and after, and how it was taken.

    tries: dampings tried, `damping` being the last. solver, iterations, residual: of the last solve. seconds cover
    the curvature, the solves and the gradients after them.
    """

    gradient_before: float
    gradient_after: float
    damping: float
    tries: int
    solver: SolverName
    iterations: int
    residual: float
    step_norm: float
    seconds: float


@dataclass(frozen=True)
class RemovalUpdate:
    """theta (d,), the weights after the last step, and a report of every step."""

    theta: Tensor
    steps: tuple[StepReport, ...]


def newton_removal(
    objective: Objective,
    theta: Tensor,
    retained: SampleSource,
    removed: RemovedGradient,
    *,
    block: Tensor | None,
    steps: int,
    damping: float | None,
    convex: bool,
    on_progress: Progress | None = None,
) -> RemovalUpdate:
    """Weights of the model without the removed samples, by `steps` Newton steps from `theta` (d,).

    block: sorted flat parameter indices, None for all. damping: added to the curvature's diagonal beside l2; None
    takes 0 where `convex`. Elsewhere it goes up RELATIVE_DAMPINGS to the first with which the system is solved and the
    step does not raise the retained gradient, or to the last. `theta` is not changed.

    With the last damping tried, raises IndefiniteCurvature where the damped curvature is not positive definite and
    NumericalError where its system is not solved to the tolerance. Raises NonFiniteInput where weights, gradients or
    the curvature are not finite, ConfigurationError for an empty set or a block that is no index set.
    """
    _check_arguments(objective, theta, retained, removed, steps, damping)
    actual = objective_gradient(objective, theta, retained)
    _check_gradient(actual)
    reports = []
    for number in range(steps):
        started = time.perf_counter()
        before = float(actual.norm())
        # At w* the retained gradient is made of the removed samples alone; later it is what the last step left.
        gradient = actual if number else -(removed.total + removed.count * objective.l2 * theta) / len(retained)
        _check_gradient(gradient)
        restriction = Restriction(objective, theta, block)
        system = prepare_system(GaussNewton(restriction, retained), theta.dtype)
        dampings = _dampings(damping, convex, system)
        for tries, added in enumerate(dampings, start=1):
            is_last = tries == len(dampings)
            try:
                solution = system.solve(-gradient[restriction.indices], objective.l2 + added)
            except NonFiniteInput:
                # No damping makes it finite.
                raise
            except NumericalError:
                if is_last:
                    raise
                continue
            moved = theta.index_add(0, restriction.indices, solution.x)
            actual = objective_gradient(objective, moved, retained)
            if is_last or float(actual.norm()) <= before:
                break
        theta = moved
        reports.append(
            StepReport(
                gradient_before=before,
                gradient_after=float(actual.norm()),
                damping=added,
                tries=tries,
                solver=solution.solver,
                iterations=solution.iterations,
                residual=solution.residual,
                step_norm=float(solution.x.norm()),
                seconds=time.perf_counter() - started,
            )
        )
        if on_progress is not None:
            on_progress((number + 1) / steps)
    return RemovalUpdate(theta, tuple(reports))


def _dampings(damping: float | None, convex: bool, system: System) -> Sequence[float]:
    """The dampings to try, in order."""
    if damping is not None:
        return (damping,)
    if convex:
        return (0.0,)
    scale = system.mean_diagonal()
    return [factor * scale for factor in RELATIVE_DAMPINGS]


def _check_arguments(
    objective: Objective,
    theta: Tensor,
    retained: SampleSource,
    removed: RemovedGradient,
    steps: int,
    damping: float | None,
) -> None:
    objective.check(theta)
    for name, count in (("removal set", removed.count), ("retained set", len(retained))):
        if count == 0:
            raise ConfigurationError(
                f"The {name} is empty.", remedy="An update needs removed samples, and others that stay."
            )
    if steps < 1:
        raise ConfigurationError(f"steps is {steps}; at least 1 is needed.", remedy="Use 1 or 2 steps.")
    if damping is not None and not 0 <= damping < float("inf"):
        raise ConfigurationError(
            f"damping is {damping}; it must be finite and not negative.",
            remedy="Leave it out to have it chosen from the curvature.",
        )


def _check_gradient(gradient: Tensor) -> None:
    if not bool(torch.isfinite(gradient).all()):
        raise NonFiniteInput(
            "The gradient of the removed or the retained samples is NaN or infinite.",
            remedy="Check the samples for missing values, or retrain.",
        )
