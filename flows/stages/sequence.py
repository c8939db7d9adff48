"""The order in which the stages of a removal run: the one place that says it."""

from __future__ import annotations

from oubli.flows.job.facts import Stage
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.unlearn_config import Way

SEQUENCE = (
    Stage.FETCH,
    Stage.GRADIENTS,
    Stage.BLANKET,
    Stage.SURROGATE,
    Stage.UPDATE,
    Stage.RETRAIN,
    Stage.AUDIT,
    Stage.VALIDATE,
    Stage.REGISTER,
)
"""`fetch` makes the job and `register` ends it."""


def computing_stages(job: RemovalJob) -> tuple[Stage, ...]:
    """The stages between `fetch` and `register` that a removal runs, in their order.

    Matching needs a surrogate. `retrain` runs on request, and its model then judges in place of auditors.
    """
    compared = job.config.compare_with_retraining
    runs = {
        Stage.SURROGATE: job.config.method is Way.MATCHING,
        Stage.RETRAIN: compared,
        Stage.AUDIT: job.audited and not compared,
    }
    return tuple(stage for stage in SEQUENCE[1:-1] if runs.get(stage, True))
