"""Taking a snapshot in the form that suits the model, and restoring a stored one.

Axes: d trained parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.secant import Secant
from oubli.components.curvature.snapshots.dense import DenseSnapshot
from oubli.components.curvature.snapshots.kronecker_factors import KroneckerSnapshot
from oubli.components.curvature.snapshots.leading_directions import DIRECTIONS
from oubli.components.curvature.snapshots.low_rank import LowRankSnapshot
from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot, SnapshotForm
from oubli.components.errors import ConfigurationError
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import SampleSource
from oubli.components.progress import Progress

DENSE_BYTES = 128 * 2**20
"""What a dense snapshot may take, as every version stores one: 4,096 parameters in float64, 5,792 in float32."""

DENSE_FLOPS = 1e13
"""What building one may cost: some minutes on two cores."""

LOW_RANK_BYTES = 256 * 2**20
"""What leading directions may take: 262,144 parameters in float32."""

_CLASSES: dict[SnapshotForm, type[CurvatureSnapshot]] = {
    kind.form: kind for kind in (DenseSnapshot, LowRankSnapshot, KroneckerSnapshot)
}


def choose_form(objective: Objective, source: SampleSource) -> SnapshotForm:
    """The form that suits the model's size and loss.

    Dense where its matrix and the work of building it stay within DENSE_BYTES and DENSE_FLOPS. Beyond, leading
    directions where they stay within LOW_RANK_BYTES and labels can be drawn for the loss; else Kronecker factors.
    """
    d, itemsize = objective.space.d, objective.dtype.itemsize
    if d**2 * itemsize <= DENSE_BYTES:
        restriction = Restriction(objective, objective.theta(), None)
        if GaussNewton(restriction, source).dense_flops() <= DENSE_FLOPS:
            return SnapshotForm.DENSE
    if objective.kind is not None and DIRECTIONS * d * itemsize <= LOW_RANK_BYTES:
        return SnapshotForm.LOW_RANK
    return SnapshotForm.KRONECKER


def take_snapshot(
    objective: Objective,
    theta: Tensor,
    source: SampleSource,
    *,
    form: SnapshotForm | None = None,
    seed: int | None = 0,
    share: float = 1.0,
    budget_bytes: int = MEMORY_BUDGET_BYTES,
    on_progress: Progress | None = None,
) -> CurvatureSnapshot:
    """The snapshot of a source at theta, without a secant, which is another's to add (`dataclasses.replace`).

    Args:
        objective: The model and its loss.
        theta: (d,) weights that training ended with.
        source: The training samples.
        form: None takes what `choose_form` chooses.
        seed: Of drawn labels, and of the samples that a low rank is made of. For the Kronecker form None, and any loss
            that is not one of `losses.Loss`, takes all columns of the loss's Hessian.
        share: Of the samples that the Kronecker factors are made of, in (0, 1]; see `KroneckerSnapshot.take`.
        budget_bytes: What one chunk's temporaries may take.
        on_progress: Told the fraction done.

    Raises:
        ConfigurationError: The source is empty, or the share out of its range.
        NonFiniteInput: The weights are not finite.
    """
    objective.check(theta)
    chosen = form or choose_form(objective, source)
    if chosen is SnapshotForm.KRONECKER:
        return KroneckerSnapshot.take(
            objective, theta, source, seed=seed, share=share, budget_bytes=budget_bytes, on_progress=on_progress
        )
    snapshot: CurvatureSnapshot
    if chosen is SnapshotForm.LOW_RANK:
        snapshot = LowRankSnapshot.take(objective, theta, source, seed=seed or 0, budget_bytes=budget_bytes)
    else:
        snapshot = DenseSnapshot.take(objective, theta, source, budget_bytes=budget_bytes)
    if on_progress is not None:
        on_progress(1.0)
    return snapshot


def restore_snapshot(tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> CurvatureSnapshot:
    """The snapshot that `CurvatureSnapshot.tensors` and `CurvatureSnapshot.facts` were of.

    Args:
        tensors: By name, as they were stored.
        facts: The scalars, as JSON gives them back.

    Raises:
        ConfigurationError: They are of no snapshot.
    """
    try:
        return _restored(tensors, facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"These tensors and facts make no curvature snapshot: {error!r}.",
            remedy="Take the snapshot anew from the training data, or pass over the retained samples.",
        ) from error


def _restored(tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> CurvatureSnapshot:
    n, seed, share, form = facts["n"], facts["seed"], facts["share"], SnapshotForm(str(facts["form"]))
    if not (isinstance(n, int) and (seed is None or isinstance(seed, int)) and isinstance(share, int | float)):
        raise TypeError("n, seed or share")
    secant = Secant(tensors["secant.step"], tensors["secant.change"]) if facts["secant"] else None
    return dataclasses.replace(_CLASSES[form].restored(n, tensors, facts), seed=seed, share=share, secant=secant)
