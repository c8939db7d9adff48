"""The rank-one secant of two states of training.

Axes: d parameters, d_P of them in the block.

    s = w_last - w_before,   y = grad F(w_last) - grad F(w_before),   B = y y^T / (y^T s)

F is the mean loss over the samples, without the L2 term. B is the symmetric matrix of rank one with B s = y (Dennis,
Moré, *Quasi-Newton methods, motivation and theory*, SIAM Review 1977). Mehta et al. (CVPR 2022) divide the change of
the gradient by that of the weights, element by element, as the curvature of their update: that is no symmetric matrix,
and where a weight hardly moved it is any number. This is its well-defined form, kept for comparison with the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NonFiniteInput
from oubli.components.model.restriction import Restriction
from oubli.components.solvers import System, WoodburySystem


@dataclass(frozen=True)
class Secant:
    """How far the weights and the gradient moved between two states of training.

    Attributes:
        step: (d,) w_last - w_before.
        change: (d,) the gradient of the mean loss at w_last less that at w_before.

    Raises:
        ConfigurationError: They are no flat vectors of one length.
        NonFiniteInput: One is not finite.
    """

    step: Tensor
    change: Tensor

    def __post_init__(self) -> None:
        if self.step.ndim != 1 or self.step.shape != self.change.shape:
            raise ConfigurationError(
                f"A secant needs two flat vectors of one length; found {tuple(self.step.shape)} and "
                f"{tuple(self.change.shape)}.",
                remedy="Pass the change of the flat weights, and of the flat gradient of the mean loss.",
            )
        if not (bool(self.step.isfinite().all()) and bool(self.change.isfinite().all())):
            raise NonFiniteInput("The secant is NaN or infinite.", remedy="Check the last epochs of the training.")


@dataclass(frozen=True)
class FiniteDifference:
    """B on the block: the rows of y that lie in it, over the same y^T s of all parameters.

    y^T s is the curvature of the whole step, so a block's matrix is the block of the whole one.

    Attributes:
        restriction: The block, at its weights.
        secant: Of the whole objective.

    Raises:
        ConfigurationError: The secant is of another number of parameters.
        IndefiniteCurvature: y^T s <= 0: the objective curved downwards between the two states.
    """

    restriction: Restriction
    secant: Secant

    def __post_init__(self) -> None:
        d = self.restriction.objective.space.d
        if len(self.secant.step) != d:
            raise ConfigurationError(
                f"The secant has {len(self.secant.step)} parameters, the objective {d}.",
                remedy="Take the secant over the trained parameters.",
            )
        along = float(self.secant.change.dot(self.secant.step))
        if along <= 0:
            raise IndefiniteCurvature(
                f"The secant has negative curvature: change . step is {along:.3g}.",
                remedy="Take the secant between two later epochs, or use another curvature.",
            )

    @property
    def size(self) -> int:
        """d_P."""
        return self.restriction.size

    @property
    def factor(self) -> Tensor:
        """(1, d_P): y_P / sqrt(y^T s)."""
        along = self.secant.change.dot(self.secant.step)
        y = self.secant.change.to(self.restriction.theta)[self.restriction.indices]
        return (y / along.to(y).sqrt())[None]

    def matvec(self, vector: Tensor) -> Tensor:
        """B v for v (d_P,); (d_P,)."""
        row = self.factor[0]
        return row * row.dot(vector)

    def dense(self) -> Tensor:
        """B (d_P, d_P)."""
        return self.factor.T @ self.factor

    def system(self) -> System:
        """Solved by the formula of Sherman and Morrison; the shift must be positive."""
        return WoodburySystem(self.factor)
