"""The errors that the numeric core raises on purpose.

    OubliError
    ├── ConfigurationError        a setting or an argument is wrong, or two of them conflict
    └── NumericalError            the mathematics cannot go on with this input
        ├── NonFiniteInput
        └── IndefiniteCurvature

`oubli.registry.errors` adds those of the store, the data and the model registry, and draws the whole tree.
Each message names the thing, what was expected, what was found, and the remedy.
"""

from __future__ import annotations


class OubliError(Exception):
    """Root of the tree.

    `problem` says what is wrong and names the thing; `remedy` says what to do about it.
    """

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".rstrip())

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by the default pickling, which task runners rely on.
        return (_rebuild, (type(self), self.problem, self.remedy))


def _rebuild(kind: type[OubliError], problem: str, remedy: str) -> OubliError:
    return kind(problem, remedy=remedy)


class ConfigurationError(OubliError):
    """A setting or an argument is wrong, or two of them conflict."""


class NumericalError(OubliError):
    """The mathematics cannot go on with this input."""


class NonFiniteInput(NumericalError):
    """NaN or infinity where a finite number is needed."""


class IndefiniteCurvature(NumericalError):
    """The damped curvature still has a direction of non-positive curvature."""
