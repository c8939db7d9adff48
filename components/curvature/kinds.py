"""The curvatures by name.

Axes: d parameters, d_P of them in the block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from oubli.components.curvature.curvature_kind import CurvatureKind as CurvatureKind
from oubli.components.curvature.fisher import EmpiricalFisher, SampledFisher
from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.hessian import Hessian
from oubli.components.curvature.kfac import EigenvalueCorrected, Kronecker
from oubli.components.curvature.protocol import Curvature
from oubli.components.curvature.secant import FiniteDifference, Secant
from oubli.components.errors import ConfigurationError
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import SampleSource

CurvatureBuilder = Callable[[Restriction, SampleSource], Curvature]
"""(the block at its weights, the samples) -> the curvature of their mean loss. Nothing costly happens in the call."""


def curvature_builder(
    kind: CurvatureKind,
    *,
    secant: Secant | None = None,
    seed: int = 0,
    exact: bool = False,
    budget_bytes: int = MEMORY_BUDGET_BYTES,
) -> CurvatureBuilder:
    """How to make a curvature of this kind.

    Args:
        kind: Which one.
        secant: For `finite_difference`, which needs nothing else.
        seed: Of the labels that `sampled_fisher`, `kfac` and `ekfac` draw.
        exact: `kfac` and `ekfac` take all columns of the loss's Hessian in place of one drawn label, at as many
            backward passes.
        budget_bytes: What one chunk's temporaries may take.

    Raises:
        ConfigurationError: The kind is `finite_difference`, and the secant is missing.
    """
    match kind:
        case CurvatureKind.GGN:
            return partial(GaussNewton, budget_bytes=budget_bytes)
        case CurvatureKind.HESSIAN:
            return partial(Hessian, budget_bytes=budget_bytes)
        case CurvatureKind.FISHER:
            return partial(EmpiricalFisher, budget_bytes=budget_bytes)
        case CurvatureKind.SAMPLED_FISHER:
            return partial(SampledFisher, seed=seed, budget_bytes=budget_bytes)
        case CurvatureKind.KFAC:
            return partial(Kronecker, seed=None if exact else seed, budget_bytes=budget_bytes)
        case CurvatureKind.EKFAC:
            return partial(EigenvalueCorrected, seed=None if exact else seed, budget_bytes=budget_bytes)
        case CurvatureKind.FINITE_DIFFERENCE:
            return partial(_secant_curvature, secant=_needed(secant))


def _secant_curvature(restriction: Restriction, _source: SampleSource, *, secant: Secant) -> Curvature:
    return FiniteDifference(restriction, secant)


def _needed(secant: Secant | None) -> Secant:
    if secant is None:
        raise ConfigurationError(
            "The curvature finite_difference needs a secant.",
            remedy="Pass the change of weights and of gradient over the last epochs of the training.",
        )
    return secant
