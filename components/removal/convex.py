"""Removal from a strictly convex model: to the minimiser of F_R, as far as a bound on the distance asks.

Axes: r retained samples, d trained parameters.

Newton steps on F_R, each system solved by conjugate gradients on products with the Hessian over the retained samples,
preconditioned by the factor of the curvature that was kept from training. The products are exact, so it does not matter
to the result that the factor still holds the removed samples, that the weights have moved since, or that it is rounded
or coarse: only to how many products there are. Nothing is to be taken off it, and a thousandth removal from one
factor costs what the first did.

By strong convexity ||w - w_R|| <= ||grad F_R(w)|| / l2. The steps end where that is at most a share of how far the
weights moved, so that a small removal is as exact as a large one. Each system is solved as far as what the step's
linearisation leaves is worth: by the share that the last one left (Eisenstat, Walker, *SIAM Journal on Scientific
Computing* 17, 1996, choice 1), and no further than the bound asks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from oubli.components.curvature.convex_passes import ConvexPasses, convex_passes
from oubli.components.curvature.factors import CurvatureFactor
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NumericalError
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.objective import Objective
from oubli.components.model.samples import SampleSource
from oubli.components.progress import Progress
from oubli.components.removal.checks import check_counts, check_gradient
from oubli.components.removal.update import RemovalUpdate, StepReport, model_gradient
from oubli.components.solvers import SolverName

TOLERANCE = 1e-6
"""Of the distance bound, relative to how far the weights moved."""

STEPS = 50
"""At most."""

PRODUCTS = 500
"""For one step, at most."""

_FIRST_SHARE = 1e-2
"""Of its gradient that the first system's solution may leave: nothing is known yet of what linearising leaves."""

_MOST, _LEAST = 0.1, 1e-5
"""Of that share later; products in float32 reach no less."""

_OVERSHOOT = 0.5
"""A step is shortened where the slope at its end is more than this share of the slope at its start, and upwards."""

_PATIENCE = 3
"""Steps, each small and without a third less of the gradient, after which rounding is taken to have ended them."""

_SMALL = 1e-6
"""Of the weights' norm: such a step's linearisation is no reason for a gradient that stays."""

_ROUNDING = 1e-12
"""Distance bound, relative to the weights' norm, below which nothing is left to do."""


def convex_removal(
    objective: Objective,
    theta: Tensor,
    retained: SampleSource,
    removed: RemovedGradient,
    factor: CurvatureFactor,
    *,
    tolerance: float = TOLERANCE,
    on_progress: Progress | None = None,
) -> RemovalUpdate:
    """The minimiser of F_R, from `theta`, which is not changed and need not be a minimiser of F.

    Args:
        objective: F, with a positive l2.
        theta: (d,) weights to start from: the parent's, after however many removals.
        retained: The r samples that stay.
        removed: The gradient of those that go, at theta, for the record.
        factor: Of the curvature, taken at whatever weights over whatever samples.
        tolerance: Of the distance bound, relative to how far the weights moved, at most their norm.
        on_progress: Told the fraction of the way done.

    Returns:
        The weights, with a report of each step; the last one's bound is measured at them.

    Raises:
        ConfigurationError: A set is empty, l2 is 0, or the factor is of another model.
        NonFiniteInput: Weights or gradients are not finite.
        IndefiniteCurvature: F_R is not convex.
        NumericalError: The bound is not reached.
    """
    objective.check(theta)
    check_counts(removed.count, len(retained))
    _check(objective, factor)
    descent = _Descent(objective, convex_passes(objective, retained), factor, tolerance, theta)
    pull = removed.pull(objective, theta) / len(retained)
    whole = model_gradient(descent.gradient, pull, len(retained), removed.count)
    while not descent.done():
        descent.step()
        if on_progress is not None:
            on_progress(min(0.99, len(descent.reports) / 5))
    if on_progress is not None:
        on_progress(1.0)
    return RemovalUpdate(descent.theta.to(theta), tuple(descent.reports), whole, float(pull.norm()))


@dataclass(frozen=True)
class _Solution:
    """x with about H x = -grad, what of -grad - H x is left, and the products that it took."""

    x: Tensor
    left: Tensor
    products: int


@dataclass
class _Descent:
    """The steps, and where they have led."""

    objective: Objective
    passes: ConvexPasses
    factor: CurvatureFactor
    tolerance: float
    theta: Tensor
    reports: list[StepReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._clock, self._counted = time.perf_counter(), 1
        self._start, self._share, self._idle = self.theta, _FIRST_SHARE, 0
        self.gradient = self.passes.gradient(self.theta)
        check_gradient(self.gradient)

    def done(self) -> bool:
        """Whether the bound holds, or is as good as rounding lets it become."""
        norm, bound = float(self.theta.norm()), float(self.gradient.norm()) / self.objective.l2
        if bound <= max(self._wanted(self.theta), _ROUNDING * norm):
            return True
        stalled = self._idle >= _PATIENCE
        if (stalled and bound > self.tolerance * norm) or len(self.reports) >= STEPS:
            raise NumericalError(
                f"The weights may be {bound / norm if norm else bound:.2g} of their norm from the minimiser after "
                f"{len(self.reports)} steps; {self.tolerance:.2g} is needed.",
                remedy="Set use_snapshot to 'never' for a new factor, normalise the inputs, or raise l2 in training.",
            )
        return stalled

    def step(self) -> None:
        """One more."""
        before = float(self.gradient.norm())
        solution = self._solve()
        theta, gradient, tries = self._moved(solution.x)
        after = float(gradient.norm())
        # What linearising left goes with the square of the step.
        nonlinear = float((gradient + solution.left).norm()) / before
        self._share = min(_MOST, max(_LEAST, 0.3 * nonlinear * after / before))
        step_norm = float((theta - self.theta).norm())
        idle = after > before / 1.5 and step_norm <= _SMALL * float(theta.norm())
        self._idle = self._idle + 1 if idle else 0
        self.reports.append(
            StepReport(
                gradient_before=before,
                gradient_after=after,
                damping=0.0,
                tries=tries,
                solver=SolverName.CONJUGATE_GRADIENTS,
                iterations=solution.products,
                residual=float(solution.left.norm()) / before,
                step_norm=step_norm,
                seconds=time.perf_counter() - self._clock,
                passes=self._counted + solution.products + tries,
                bound=after / self.objective.l2,
            )
        )
        self.theta, self.gradient = theta, gradient
        self._clock, self._counted = time.perf_counter(), 0

    def _wanted(self, theta: Tensor) -> float:
        """The distance bound that suffices at theta."""
        moved = min(float((theta - self._start).norm()), float(theta.norm()))
        return self.tolerance * moved

    def _solve(self) -> _Solution:
        """Preconditioned conjugate gradients."""
        left, x = -self.gradient, torch.zeros_like(self.gradient)
        enough = self._share * float(left.norm())
        direction = solved = self.factor.solve(left)
        energy = left @ solved
        for count in range(1, PRODUCTS + 1):  # noqa: B007 - told in the end
            product = self.passes.product(direction)
            bend = direction @ product
            if not float(bend) > 0:
                raise IndefiniteCurvature(
                    f"The objective bends by {float(bend):.3g} along a step: it is not strictly convex.",
                    remedy="Check that the loss is convex in the outputs, or record the model with convex=False.",
                )
            length = energy / bend
            x, left = x + length * direction, left - length * product
            norm = float(left.norm())
            least = _LEAST * float(self.gradient.norm())
            if norm <= enough or norm <= max(least, 0.3 * self.objective.l2 * self._wanted(self.theta + x)):
                break
            solved = self.factor.solve(left)
            energy, last = left @ solved, energy
            direction = solved + (energy / last) * direction
        return _Solution(x, left, count)

    def _moved(self, step: Tensor) -> tuple[Tensor, Tensor, int]:
        """Where the step leads, the gradient there, and how often it was tried shorter."""
        slope = float(self.gradient @ step)
        length, tries = 1.0, 0
        while True:
            theta = self.theta + length * step
            gradient = self.passes.gradient(theta)
            check_gradient(gradient)
            tries += 1
            end = float(gradient @ step)
            # By convexity F at the end is at most what it was, plus length * end.
            if not end > -_OVERSHOOT * slope or tries >= STEPS:
                return theta, gradient, tries
            # To where the slope would be 0 if it changed evenly.
            length *= slope / (slope - end)


def _check(objective: Objective, factor: CurvatureFactor) -> None:
    """ConfigurationError where there is no bound, or the factor is another model's."""
    if objective.l2 <= 0:
        raise ConfigurationError(
            "l2 is 0, so that nothing bounds the distance to the minimiser.",
            remedy="Train with a positive l2, or take single Newton steps (`newton_removal`).",
        )
    if factor.d != objective.space.d:
        raise ConfigurationError(
            f"The factor is of {factor.d} parameters, the model has {objective.space.d}.",
            remedy="Take the factor with the objective that is used.",
        )
