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

Three entrances: `newton_removal` takes the removed samples as one batch, `one_at_a_time` in groups with the curvature
refreshed in between, `removal_from_snapshot` without a pass over the retained samples.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.kinds import CurvatureBuilder
from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot
from oubli.components.errors import ConfigurationError, NonFiniteInput, NumericalError
from oubli.components.model.gradients import RemovedGradient, objective_gradient
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Joined, Samples, SampleSource
from oubli.components.progress import Progress
from oubli.components.solvers import Solution, SolverName, System

RELATIVE_DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Dampings to choose from where the objective is not convex, in units of the block's mean diagonal curvature.

The less damping, the more is forgotten, and the sooner a network's retained samples suffer. No one value is right for
every block and network, so the least that keeps the retained gradient near what it was is taken.
"""

GRADIENT_RISE = 0.25
"""By how much a network's step may raise the norm of the retained gradient, relative to what it was.

A network is left with a gradient along its stiffest directions, where a step's curvature is least certain. Allowing no
rise takes dampings of 30 and more, with which next to nothing is forgotten (benchmarks/unlearning).
"""

CORRECTIONS = 2
"""After each of several steps on a convex objective: they cost a gradient each, where a step costs a curvature."""

SNAPSHOT_DAMPING = 3.0
"""Damping of a step from a snapshot where the objective is not convex, in units of the mean diagonal curvature.

Without any retained sample no try can be judged, so one is made, with the damping that the networks of
benchmarks/unlearning mostly end with. It is a guess: a few retained samples to judge by find a better one.
"""


@dataclass(frozen=True)
class StepReport:
    """One step: norms of the full gradient of F_R (not only the block's) before and after, and how it was taken.

    gradient_after: None where it was not measured, as that takes a pass over the retained samples. tries: dampings
    tried, `damping` being the last. solver, iterations, residual: of the last solve. seconds cover the curvature, the
    solves and the gradients after them.
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


@dataclass(frozen=True)
class RemovalUpdate:
    """theta (d,), the weights after the last step, and a report of every step.

    model_gradient: ||grad F(w*)|| over all n samples, 0 at a minimiser, which the formula takes w* for.
    removal_gradient: ||(1/(n-m)) sum_{i removed} (grad loss(w*, z_i) + l2 w*)||, what the removal adds to it. Where the
    first is not small against the second, the step forgets less than it disturbs.
    """

    theta: Tensor
    steps: tuple[StepReport, ...]
    model_gradient: float
    removal_gradient: float


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
    rise: float = GRADIENT_RISE,
    curvature: CurvatureBuilder = GaussNewton,
    curvature_samples: SampleSource | None = None,
    probe: SampleSource | None = None,
    on_progress: Progress | None = None,
) -> RemovalUpdate:
    """Weights of the model without the removed samples, by `steps` Newton steps from `theta` (d,).

    block: sorted flat parameter indices, None for all. damping: added to the curvature's diagonal beside l2; None
    takes 0 where `convex`. Elsewhere it takes the least of RELATIVE_DAMPINGS with which the system is solved and the
    step raises the norm of the retained gradient by no more than the factor 1 + `rise`, else the largest. It is found
    by bisection: more damping makes the step shorter. curvature: makes the curvature of a source on a block.
    curvature_samples: retained samples that the curvature is estimated from, probe: those that dampings are judged by;
    None takes all. The two must not be the same few: where the curvature of some samples is flat, their own gradient
    hardly changes, however far the others' does. `theta` is not changed.

    With the largest damping, raises IndefiniteCurvature where the damped curvature is not positive definite and
    NumericalError where its system is not solved to the tolerance. Raises NonFiniteInput where weights, gradients or
    the curvature are not finite, ConfigurationError for an empty set or a block that is no index set.
    """
    _check_arguments(objective, theta, removed.count, len(retained), steps, damping)
    actual = objective_gradient(objective, theta, retained)
    _check_gradient(actual)
    pull = _pull(objective, theta, removed) / len(retained)
    model_gradient = _model_gradient(actual, pull, len(retained), removed.count)
    reports = []
    for number in range(steps):
        started = time.perf_counter()
        before = float(actual.norm())
        # At w* the retained gradient is made of the removed samples alone; later it is what the last step left.
        gradient = actual if number else -pull
        _check_gradient(gradient)
        restriction = Restriction(objective, theta, block)
        system = curvature(restriction, retained if curvature_samples is None else curvature_samples).system()
        chosen = _least_damping(
            objective,
            theta,
            restriction.indices,
            -gradient,
            system,
            _dampings(damping, convex, system),
            actual,
            retained if probe is None else probe,
            rise,
        )
        actual = objective_gradient(objective, chosen.theta, retained)
        theta = chosen.theta
        if convex and steps > 1:
            theta, actual = _corrected(objective, theta, actual, retained, restriction.indices, system, chosen.damping)
        reports.append(_report(chosen.solution, before, float(actual.norm()), chosen.damping, chosen.tries, started))
        if on_progress is not None:
            on_progress((number + 1) / steps)
    return RemovalUpdate(theta, tuple(reports), model_gradient, float(pull.norm()))


def one_at_a_time(
    objective: Objective,
    theta: Tensor,
    retained: SampleSource,
    removed: Samples,
    *,
    block: Tensor | None,
    steps: int,
    damping: float | None,
    convex: bool,
    group: int = 1,
    rise: float = GRADIENT_RISE,
    curvature: CurvatureBuilder = GaussNewton,
    curvature_samples: SampleSource | None = None,
    on_progress: Progress | None = None,
) -> RemovalUpdate:
    """As `newton_removal`, taking `group` removed samples at a time, with gradients and curvature made anew for each.

    What has not been removed yet is still retained. One curvature per group: for checking the batch, not for speed.
    The reports are those of all groups, one after another; model_gradient and removal_gradient those of the first.
    Raises what `newton_removal` raises.
    """
    if group < 1:
        raise ConfigurationError(f"group is {group}; at least 1 is needed.", remedy="Use 1 for one at a time.")
    reports: list[StepReport] = []
    first: RemovalUpdate | None = None
    for start in range(0, len(removed), group):
        chosen = removed.select(torch.arange(start, min(start + group, len(removed))))
        waiting = removed.select(torch.arange(start + len(chosen), len(removed)))
        update = newton_removal(
            objective,
            theta,
            Joined((retained, waiting)) if len(waiting) else retained,
            RemovedGradient.of(objective, theta, chosen),
            block=block,
            steps=steps,
            damping=damping,
            convex=convex,
            rise=rise,
            curvature=curvature,
            curvature_samples=curvature_samples,
        )
        first = first or update
        theta = update.theta
        reports.extend(update.steps)
        if on_progress is not None:
            on_progress((start + len(chosen)) / len(removed))
    if first is None:
        raise ConfigurationError("The removal set is empty.", remedy="Pass at least one removed sample.")
    return RemovalUpdate(theta, tuple(reports), first.model_gradient, first.removal_gradient)


def removal_from_snapshot(
    objective: Objective,
    theta: Tensor,
    snapshot: CurvatureSnapshot,
    removed: Samples,
    *,
    block: Tensor | None,
    damping: float | None,
    convex: bool,
    probe: SampleSource | None = None,
    rise: float = GRADIENT_RISE,
) -> RemovalUpdate:
    """One Newton step from what was kept when the model was trained, without a pass over the retained samples.

    theta: the weights that the snapshot was taken at. The retained gradient at w* and the curvature over R are the
    snapshot's less the removed samples' part. damping: None takes 0 where `convex`, else the least that `probe` allows,
    as `newton_removal` takes it: some retained samples, others than the snapshot was estimated from. Without a probe no
    retained sample is read, and SNAPSHOT_DAMPING mean diagonal curvatures are taken. What the step did to the retained
    gradient is not known here (gradient_after is None): whoever wants to promote the model measures it.

    Raises what `newton_removal` raises.
    """
    _check_arguments(objective, theta, len(removed), snapshot.n - len(removed), 1, damping)
    started = time.perf_counter()
    own = RemovedGradient.of(objective, theta, removed)
    retained = snapshot.n - len(removed)
    pull = _pull(objective, theta, own) / retained
    actual = (snapshot.gradient - own.total) / retained + objective.l2 * theta
    _check_gradient(actual)
    _check_gradient(pull)
    restriction = Restriction(objective, theta, block)
    system = snapshot.without(restriction, removed).system()
    dampings = _dampings(damping, convex, system)
    if probe is None and len(dampings) > 1:
        dampings = (SNAPSHOT_DAMPING * system.mean_diagonal(),)
    indices = restriction.indices
    chosen = _least_damping(objective, theta, indices, pull, system, dampings, actual, probe or removed, rise)
    report = _report(chosen.solution, float(actual.norm()), None, chosen.damping, chosen.tries, started)
    return RemovalUpdate(
        chosen.theta,
        (report,),
        _model_gradient(actual, pull, retained, len(removed)),
        float(pull.norm()),
    )


def _pull(objective: Objective, theta: Tensor, removed: RemovedGradient) -> Tensor:
    """The sum over the removed samples of their gradients, each with its share of the regulariser's, (d,)."""
    return removed.total + removed.count * objective.l2 * theta


def _model_gradient(actual: Tensor, pull: Tensor, retained: int, removed: int) -> float:
    """||grad F|| over all samples, from grad F_R and the removed samples' part of it."""
    return float(((actual + pull) * (retained / (retained + removed))).norm())


def _report(
    solution: Solution, before: float, after: float | None, damping: float, tries: int, started: float
) -> StepReport:
    return StepReport(
        gradient_before=before,
        gradient_after=after,
        damping=damping,
        tries=tries,
        solver=solution.solver,
        iterations=solution.iterations,
        residual=solution.residual,
        step_norm=float(solution.x.norm()),
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Move:
    """Weights after a solve with one of the dampings, and how many were tried for it."""

    theta: Tensor
    solution: Solution
    damping: float
    tries: int


def _least_damping(
    objective: Objective,
    theta: Tensor,
    indices: Tensor,
    pull: Tensor,
    system: System,
    dampings: Sequence[float],
    actual: Tensor,
    probe: SampleSource,
    rise: float,
) -> _Move:
    """The step with the least damping that raises the retained gradient no further than by the factor 1 + `rise`.

    The step with the largest damping where all of them do. actual (d,): the retained gradient before the step; after it
    is estimated from how that of `probe` changes, since the gradient of a few samples is mostly their own noise, which
    the difference does not have.
    """

    def move(damping: float, tries: int) -> _Move:
        solution = system.solve(pull[indices], objective.l2 + damping)
        return _Move(theta.index_add(0, indices, solution.x), solution, damping, tries)

    if len(dampings) == 1:
        return move(dampings[0], 1)
    limit = (1 + rise) * float(actual.norm())
    offset = actual - objective_gradient(objective, theta, probe)
    best: _Move | None = None
    low, high, tries = 0, len(dampings), 0
    while low < high:
        middle = (low + high) // 2
        tries += 1
        try:
            tried = move(dampings[middle], tries)
        except NonFiniteInput:
            # No damping makes it finite.
            raise
        except NumericalError:
            low = middle + 1
            continue
        if float((offset + objective_gradient(objective, tried.theta, probe)).norm()) <= limit:
            best, high = tried, middle
        else:
            low = middle + 1
    # Where none would do, the largest says why: by its error, or by the gradient that it raises.
    return move(dampings[-1], tries) if best is None else replace(best, tries=tries)


def _corrected(
    objective: Objective,
    theta: Tensor,
    gradient: Tensor,
    retained: SampleSource,
    indices: Tensor,
    system: System,
    damping: float,
) -> tuple[Tensor, Tensor]:
    """Weights and their gradient after further solves with the same system, as far as they lower the gradient."""
    for _ in range(CORRECTIONS):
        moved = theta.index_add(0, indices, system.solve(-gradient[indices], objective.l2 + damping).x)
        after = objective_gradient(objective, moved, retained)
        if not float(after.norm()) < float(gradient.norm()):
            break
        theta, gradient = moved, after
    return theta, gradient


def _dampings(damping: float | None, convex: bool, system: System) -> Sequence[float]:
    """The dampings to try, in order."""
    if damping is not None:
        return (damping,)
    if convex:
        return (0.0,)
    scale = system.mean_diagonal()
    return [factor * scale for factor in RELATIVE_DAMPINGS]


def _check_arguments(
    objective: Objective, theta: Tensor, removed: int, retained: int, steps: int, damping: float | None
) -> None:
    objective.check(theta)
    for name, count in (("removal set", removed), ("retained set", retained)):
        if count <= 0:
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
