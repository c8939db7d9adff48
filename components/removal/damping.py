"""What is added to the curvature's diagonal beside l2, and how it is found.

A damping is a value that takes a step: none, a given one, or the least that keeps the retained gradient near what it
was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from oubli.components.errors import ConfigurationError, NonFiniteInput, NumericalError
from oubli.components.model.gradients import objective_gradient
from oubli.components.model.samples import SampleSource
from oubli.components.removal.step import Move, NewtonStep

RELATIVE_DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Dampings to choose from where the objective is not convex, in units of the block's mean diagonal curvature.

The less damping, the more is forgotten, and the sooner a network's retained samples suffer. No one value is right for
every block and network, so the least that keeps the retained gradient near what it was is taken. A network that has
memorised its samples has next to no mean curvature: beyond these, the same multiples of l2 are tried.
"""

GRADIENT_RISE = 0.25
"""By how much a network's step may raise the norm of the retained gradient, relative to what it was.

A network is left with a gradient along its stiffest directions, where a step's curvature is least certain. Allowing no
rise takes dampings of 30 and more, with which next to nothing is forgotten (benchmarks/unlearning).
"""

SNAPSHOT_DAMPING = 3.0
"""Damping of a step that no retained sample judges, in units of the mean diagonal curvature.

It is the damping that the networks of benchmarks/unlearning mostly end with, and a guess: a few retained samples to
judge by find a better one.
"""


@dataclass(frozen=True)
class Undamped:
    """No damping, for convex objectives: l2 alone makes the curvature positive definite."""

    @property
    def words(self) -> str:
        """How the damping is found, for a record."""
        return "none (convex)"

    def step(self, step: NewtonStep) -> Move:
        """The step as it is; raises what `NewtonStep.move` raises."""
        return step.move(0.0)


@dataclass(frozen=True)
class Fixed:
    """A given damping.

    Attributes:
        value: Finite and not negative, in units of the curvature.

    Raises:
        ConfigurationError: The value is out of its range.
    """

    value: float

    def __post_init__(self) -> None:
        if not 0 <= self.value < float("inf"):
            raise ConfigurationError(
                f"damping is {self.value}; it must be finite and not negative.",
                remedy="Leave it out to have it chosen from the curvature.",
            )

    @property
    def words(self) -> str:
        """How the damping is found, for a record."""
        return f"{self.value:g}, as configured"

    def step(self, step: NewtonStep) -> Move:
        """The step with the given damping; raises what `NewtonStep.move` raises."""
        return step.move(self.value)


@dataclass(frozen=True)
class Least:
    """The least of RELATIVE_DAMPINGS with which the step hardly raises the retained gradient, for networks.

    Attributes:
        rise: By how much the norm of the retained gradient may rise, relative to what it was.
        probe: Retained samples to judge a damping by; None takes all. Not those that the curvature is estimated from,
            where those are few: where the curvature of some samples is flat, their own gradient hardly changes, however
            far the others' does.
    """

    rise: float = GRADIENT_RISE
    probe: SampleSource | None = None

    @property
    def words(self) -> str:
        """How the damping is found, for a record."""
        return "relative to the mean curvature"

    def step(self, step: NewtonStep) -> Move:
        """The step with the least damping that the retained gradient allows.

        Where there are neither a probe nor retained samples to read, no try can be judged, and one is made, with
        SNAPSHOT_DAMPING.

        Raises:
            IndefiniteCurvature: The curvature is not positive definite with the largest damping.
            NumericalError: No damping keeps the retained gradient near what it was, or the system is not solved to the
                tolerance with the largest one.
            NonFiniteInput: The curvature is not finite.
        """
        scale = step.system.mean_diagonal()
        samples = step.retained if self.probe is None else self.probe
        if samples is None:
            return step.move(SNAPSHOT_DAMPING * scale)
        before = float(step.gradient.norm())
        limit = (1 + self.rise) * before
        # The gradient of a few samples is mostly their own noise; how it changes is not.
        offset = step.gradient - objective_gradient(step.objective, step.theta, samples)

        def norm_after(move: Move) -> float:
            return float((offset + objective_gradient(step.objective, move.theta, samples)).norm())

        dampings = _ladder(scale, step.objective.l2)
        found = _least(step, dampings, lambda move: norm_after(move) <= limit)
        if found is None:
            # The largest says why: by its error, or by the gradient that it raises.
            after = norm_after(step.move(dampings[-1]))
            raise NumericalError(
                f"No damping up to {dampings[-1]:.3g} keeps the retained gradient near what it was: even with that its "
                f"norm goes from {before:.3g} to {after:.3g}, and {limit:.3g} is allowed.",
                remedy="Give a larger damping, or remove by matching.",
            )
        return found


Damping = Undamped | Fixed | Least
"""The ways to damp."""


def _ladder(scale: float, l2: float) -> list[float]:
    """RELATIVE_DAMPINGS in units of the mean curvature and, beyond those, in units of l2; in rising order."""
    relative = [factor * scale for factor in RELATIVE_DAMPINGS]
    return relative + [factor * l2 for factor in RELATIVE_DAMPINGS if factor * l2 > relative[-1]]


def _least(step: NewtonStep, dampings: Sequence[float], suffices: Callable[[Move], bool]) -> Move | None:
    """The move with the least damping that is solved and suffices, by bisection: more damping, a shorter step."""
    best: Move | None = None
    low, high, tries = 0, len(dampings), 0
    while low < high:
        middle = (low + high) // 2
        tries += 1
        try:
            move = step.move(dampings[middle])
        except NonFiniteInput:
            # No damping makes it finite.
            raise
        except NumericalError:
            low = middle + 1
            continue
        if suffices(move):
            best, high = move, middle
        else:
            low = middle + 1
    return None if best is None else replace(best, tries=tries)
