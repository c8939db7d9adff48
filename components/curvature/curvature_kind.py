"""The names of the curvatures. Apart from the curvatures, so that reading a name costs no import of torch."""

from __future__ import annotations

from enum import StrEnum


class CurvatureKind(StrEnum):
    """Which matrix stands for the Hessian of the mean loss."""

    GGN = "ggn"
    HESSIAN = "hessian"
    FISHER = "fisher"
    SAMPLED_FISHER = "sampled_fisher"
    KFAC = "kfac"
    EKFAC = "ekfac"
    FINITE_DIFFERENCE = "finite_difference"
