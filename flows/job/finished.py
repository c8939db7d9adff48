"""Whether a removal has been done before, and how it ended then."""

from __future__ import annotations

from oubli.flows.job.facts import FetchFacts, Stage
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import RemovalOutcome, Status


def finished_outcome(registry: ModelRegistry, job: RemovalJob) -> RemovalOutcome | None:
    """How this very removal ended.

    Returns:
        None where no earlier run finished it, or where somebody deleted the version that it made.
    """
    version = registry.by_removal_key(job.model, job.key)
    stage = job.area.finished(Stage.REGISTER, RemovalOutcome)
    if stage is not None:
        if stage.facts.status is Status.REFUSED:
            return stage.facts
        # Where the version was deleted since, the work area can make it anew.
        return None if version is None else stage.facts.model_copy(update={"status": Status.ALREADY_DONE})
    if version is None or job.area.finished(Stage.FETCH, FetchFacts) is not None:
        return None
    # Made long ago, and its work area has been cleaned up.
    return RemovalOutcome(
        status=Status.ALREADY_DONE,
        removal_key=job.key,
        model=job.model,
        parent_version=job.parent_version,
        version=version.version,
        run_id=version.run_id,
    )
