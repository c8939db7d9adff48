"""The Newton removal update from what was kept when the model was trained, without a pass over the retained samples.

Axes: n training samples, m removed samples, n - m retained samples, d trained parameters, d_P of them in the block.

The retained gradient at w*, and the curvature over the retained samples, are the snapshot's less the removed samples'
part. What the step did to the retained gradient is not known here: whoever wants to promote the model measures it.
"""

from __future__ import annotations

import time

from torch import Tensor

from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.removal.checks import check_counts, check_gradient
from oubli.components.removal.damping import Damping
from oubli.components.removal.step import NewtonStep
from oubli.components.removal.update import RemovalUpdate, StepReport, model_gradient


def removal_from_snapshot(
    objective: Objective,
    theta: Tensor,
    snapshot: CurvatureSnapshot,
    removed: Samples,
    *,
    damping: Damping,
    block: Tensor | None = None,
) -> RemovalUpdate:
    """One Newton step with the snapshot's curvature.

    Args:
        objective: The model, its loss and its l2.
        theta: (d,) weights that the snapshot was taken at; not changed.
        snapshot: Of the model's training samples.
        removed: The m samples that go.
        damping: As for `newton_removal`. The probe of `Least` are some retained samples, others than the snapshot was
            estimated from; without one no retained sample is read, and the damping is SNAPSHOT_DAMPING.
        block: (d_P,) int64 flat parameter indices in rising order; None for all.

    Returns:
        One report, whose gradient_after is None.

    Raises:
        ConfigurationError: A set is empty, the block is no index set or cuts through what the snapshot keeps whole.
        IndefiniteCurvature: The curvature is not positive definite with the (largest) damping.
        NumericalError: Its system is not solved to the tolerance with the (largest) damping.
        NonFiniteInput: Weights, gradients or the curvature are not finite.
    """
    objective.check(theta)
    retained = snapshot.n - len(removed)
    check_counts(len(removed), retained)
    started = time.perf_counter()
    own = RemovedGradient.of(objective, theta, removed)
    pull = own.pull(objective, theta) / retained
    gradient = (snapshot.gradient - own.total) / retained + objective.l2 * theta
    check_gradient(gradient)
    check_gradient(pull)
    restriction = Restriction(objective, theta, block)
    system = snapshot.without(restriction, removed).system()
    move = damping.step(NewtonStep(objective, theta, restriction.indices, pull, system, gradient, None))
    report = StepReport.of(move, float(gradient.norm()), None, started)
    whole = model_gradient(gradient, pull, retained, len(removed))
    return RemovalUpdate(move.theta, (report,), whole, float(pull.norm()))
