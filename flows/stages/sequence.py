"""The order in which the stages of a removal run: the one place that says it."""

from __future__ import annotations

from oubli.flows.job.facts import Stage
from oubli.registry.removals.unlearn_config import UnlearnConfig

SEQUENCE = (
    Stage.FETCH,
    Stage.GRADIENTS,
    Stage.BLANKET,
    Stage.UPDATE,
    Stage.RETRAIN,
    Stage.VALIDATE,
    Stage.REGISTER,
)
"""`fetch` makes the job and `register` ends it; `retrain` runs on request."""


def computing_stages(config: UnlearnConfig) -> tuple[Stage, ...]:
    """The stages between `fetch` and `register` that a removal with this configuration runs, in their order."""
    return tuple(stage for stage in SEQUENCE[1:-1] if stage is not Stage.RETRAIN or config.compare_with_retraining)
