"""The models that a removal's verdict compares, each with its figures: parent, updated, retrained, and as trained.

Axes: d trained parameters, m removed samples, k held-out ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from oubli.components.gate.ranks import OnBoth
from oubli.components.measures.evaluation import Figures, figures
from oubli.components.measures.measurement import Measurement, measure
from oubli.components.model.objective import Objective
from oubli.components.model.state import output_table
from oubli.flows.job.facts import RetrainFacts, Stage
from oubli.flows.job.materials import Materials

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Measured:
    """One model of a job.

    Attributes:
        objective: F with the model's own buffers.
        theta: Its weights (d,), rounded to the registered model's number format.
        figures: On the removed, the retained and the test samples.
    """

    objective: Objective
    theta: Tensor = field(repr=False)
    figures: Measurement

    @classmethod
    def of(cls, materials: Materials, objective: Objective, theta: Tensor) -> Measured:
        own = measure(objective, theta, materials.removed, materials.retained, materials.test)
        return cls(objective, theta, own)

    def outputs(self, materials: Materials) -> OnBoth:
        """Raw outputs on the removed and on the held-out samples."""
        return OnBoth(
            output_table(self.objective, self.theta, materials.removed),
            output_table(self.objective, self.theta, materials.held_out),
        )


def parent(materials: Materials) -> Measured:
    """The version that samples are removed from."""
    return Measured.of(materials, materials.objective, materials.theta)


def updated(materials: Materials) -> Measured:
    """What the update made."""
    return _of_module(materials, materials.model.module_of(Stage.UPDATE))


def retrained(materials: Materials) -> Measured | None:
    """What was retrained for comparison; None where nothing was."""
    if materials.job.area.finished(Stage.RETRAIN, RetrainFacts) is None:
        return None
    return _of_module(materials, materials.model.module_of(Stage.RETRAIN))


def test_figures_as_trained(materials: Materials, before: Measured) -> Figures | None:
    """The test figures of the model that the parent came from by removals, or the parent's own where it was trained.

    None where that model is gone.
    """
    if materials.account.parent_is_origin:
        return before.figures.test_figures
    trained = materials.as_trained
    return None if trained is None else figures(*trained, materials.test)


def held_out_labels(materials: Materials) -> OnBoth:
    """Labels of the removed and of the held-out samples."""
    held_out = [batch.labels.cpu() for batch in materials.held_out.batches(_ROWS_AT_ONCE)]
    return OnBoth(materials.removed.labels.cpu(), torch.cat(held_out))


def _of_module(materials: Materials, module: nn.Module) -> Measured:
    # An objective of its own: a training or matching also made its own buffers, batch-normalisation statistics among
    # them.
    return Measured.of(materials, materials.objective_of(module), materials.theta_of(module))
