"""The Newton removal update in groups of removed samples, with the curvature refreshed after each.

Axes: m removed samples, d trained parameters, d_P of them in the block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Joined, Samples, SampleSource
from oubli.components.progress import Progress
from oubli.components.removal.newton import NewtonPlan, newton_removal
from oubli.components.removal.update import RemovalUpdate, StepReport


def one_at_a_time(
    objective: Objective,
    theta: Tensor,
    retained: SampleSource,
    removed: Samples,
    plan: NewtonPlan,
    *,
    block: Tensor | None = None,
    group: int = 1,
    on_progress: Progress | None = None,
) -> RemovalUpdate:
    """As `newton_removal`, `group` removed samples at a time, with gradients and curvature made anew for each group.

    What has not been removed yet is still retained. One curvature per group: for checking the batch, not for speed.

    Args:
        objective: The model, its loss and its l2.
        theta: (d,) weights that training ended with; not changed.
        retained: The samples that stay.
        removed: The m samples that go.
        plan: How the steps for each group are taken.
        block: (d_P,) int64 flat parameter indices in rising order; None for all.
        group: How many samples go at once, at least 1.
        on_progress: Told the fraction of removed samples taken.

    Returns:
        The reports of all groups, one after another; model_gradient and removal_gradient are those of the first.

    Raises:
        ConfigurationError: `group` is less than 1, and whenever `newton_removal` raises it.
        IndefiniteCurvature: As for `newton_removal`.
        NumericalError: As for `newton_removal`.
        NonFiniteInput: As for `newton_removal`.
    """
    if group < 1:
        raise ConfigurationError(f"group is {group}; at least 1 is needed.", remedy="Use 1 for one at a time.")
    reports: list[StepReport] = []
    first: RemovalUpdate | None = None
    for start in range(0, len(removed), group):
        chosen = removed.select(torch.arange(start, min(start + group, len(removed))))
        waiting = removed.select(torch.arange(start + len(chosen), len(removed)))
        still_retained = Joined((retained, waiting)) if len(waiting) else retained
        gradient = RemovedGradient.of(objective, theta, chosen)
        update = newton_removal(objective, theta, still_retained, gradient, plan, block=block)
        first = first or update
        theta = update.theta
        reports.extend(update.steps)
        if on_progress is not None:
            on_progress((start + len(chosen)) / len(removed))
    if first is None:
        raise ConfigurationError("The removal set is empty.", remedy="Pass at least one removed sample.")
    return RemovalUpdate(theta, tuple(reports), first.model_gradient, first.removal_gradient)
