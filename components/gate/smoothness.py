"""How smooth a per-sample objective is: the constants that the theory of removal needs.

f(w, z) = loss + (l2/2) ||w||^2 is L-Lipschitz, and its Hessian M-Lipschitz (Sekhari et al., NeurIPS 2021). C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from oubli.components.errors import ConfigurationError


@dataclass(frozen=True)
class Smoothness:
    """Constants of f, l2 term included.

    Attributes:
        lipschitz: L.
        hessian_lipschitz: M.

    Raises:
        ConfigurationError: one is negative or not finite.
    """

    lipschitz: float
    hessian_lipschitz: float

    def __post_init__(self) -> None:
        check_not_negative("lipschitz", self.lipschitz)
        check_not_negative("hessian_lipschitz", self.hessian_lipschitz)


def softmax_regression_smoothness(feature_norm: float, *, l2: float, bias: bool = True, classes: int) -> Smoothness:
    """L and M of f for multinomial (C >= 2) or, with classes = 1, logistic regression on bounded features.

    With a bias, x is (x, 1), and r its norm's bound sqrt(feature_norm^2 + 1); without one, r is `feature_norm`.

    With p the predicted probabilities, the gradient of the loss is (p - e_y) x^T, of norm at most sqrt(2) r. Its third
    derivative along U is the third central moment of u = U x under p. On an interval of length b that is at most
    b^3 sqrt(3)/18 (two points reach it), and the entries of a unit vector lie within sqrt(2) of each other: so at most
    (sqrt(6)/9) r^3. A symmetric trilinear form reaches its norm at equal arguments (Banach 1938). For logistic
    regression the entries are 0 and u: r, and (sqrt(3)/18) r^3.

    The l2 term's gradient is l2 w. Every minimiser has ||w|| <= L_loss / l2, as its loss gradient equals -l2 w; within
    that ball f is 2 L_loss-Lipschitz. Its Hessian is constant. Where l2 is 0, L is that of the loss.

    Args:
        feature_norm: a bound on ||x|| that holds whatever the data, as clipping gives it.
        l2: the coefficient of the l2 term.
        bias: whether the model has one.
        classes: C; 1 for logistic regression.

    Raises:
        ConfigurationError: the norm or l2 is negative or not finite, or there is no class.
    """
    check_not_negative("feature_norm", feature_norm)
    check_not_negative("l2", l2)
    if classes < 1:
        raise ConfigurationError(f"classes is {classes}; at least 1 is needed.", remedy="1 means logistic regression.")
    r = math.hypot(feature_norm, 1.0) if bias else feature_norm
    slope, third = (1.0, math.sqrt(3) / 18) if classes == 1 else (math.sqrt(2), math.sqrt(6) / 9)
    return Smoothness(lipschitz=(2.0 if l2 else 1.0) * slope * r, hessian_lipschitz=third * r**3)


def check_not_negative(name: str, value: float) -> None:
    """ConfigurationError where a figure is negative or not finite."""
    if not 0 <= value < math.inf:
        raise ConfigurationError(
            f"{name} is {value}; it must be finite and not negative.", remedy="Check how it was computed."
        )
