"""The removal flow: it names the removal, runs its stages in their order, and shows how it ended.

A task whose stage is finished in the work area returns at once, on any machine: that is how a run resumes.
"""

from __future__ import annotations

from prefect import flow, get_run_logger, task

from oubli.flows.job.facts import Stage
from oubli.flows.job.ladder import descend
from oubli.flows.job.plan import Plan
from oubli.flows.runtime.outcome_page import show_outcome
from oubli.flows.runtime.progress import progress
from oubli.flows.runtime.retries import COMPUTES, READS_AND_WRITES
from oubli.flows.stages.audit import audit
from oubli.flows.stages.block import blanket
from oubli.flows.stages.fetch import fetch
from oubli.flows.stages.gradients import gradients
from oubli.flows.stages.planning import plan_removal
from oubli.flows.stages.register import register
from oubli.flows.stages.retrain import retrain_reference
from oubli.flows.stages.sequence import computing_stages
from oubli.flows.stages.surrogate import surrogate
from oubli.flows.stages.update import update
from oubli.flows.stages.validate import validate
from oubli.flows.training.retrain import Retraining, Start, as_outcome, retrain
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import RemovalOutcome
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import load_settings


@task(name="plan", **READS_AND_WRITES)
def plan_task(model: str, removals: list[str], config: UnlearnConfig) -> Plan:
    return plan_removal(load_settings(), model, removals, config)


@task(name="fetch", **READS_AND_WRITES)
def fetch_task(model: str, removals: list[str], config: UnlearnConfig) -> RemovalJob | RemovalOutcome:
    return fetch(load_settings(), model, removals, config)


@task(name="per-sample gradients", **COMPUTES)
def gradients_task(job: RemovalJob) -> None:
    gradients(load_settings(), job)


@task(name="Markov blanket", **COMPUTES)
def blanket_task(job: RemovalJob) -> None:
    with progress("Selecting the blanket") as on_progress:
        blanket(load_settings(), job, on_progress)


@task(name="surrogate", **COMPUTES)
def surrogate_task(job: RemovalJob) -> None:
    with progress("Training a surrogate") as on_progress:
        surrogate(load_settings(), job, on_progress)


@task(name="removal update", **COMPUTES)
def update_task(job: RemovalJob) -> None:
    with progress("Removal update") as on_progress:
        update(load_settings(), job, on_progress)


@task(name="retrain for comparison", **COMPUTES)
def retrain_task(job: RemovalJob) -> None:
    with progress("Retraining for comparison") as on_progress:
        retrain_reference(load_settings(), job, on_progress)


@task(name="audit", **COMPUTES)
def audit_task(job: RemovalJob) -> None:
    with progress("Training auditors") as on_progress:
        audit(load_settings(), job, on_progress)


@task(name="validate", **COMPUTES)
def validate_task(job: RemovalJob) -> None:
    validate(load_settings(), job)


@task(name="register", **READS_AND_WRITES)
def register_task(job: RemovalJob) -> RemovalOutcome:
    return register(load_settings(), job)


@task(name="retrain and register", **COMPUTES)
def retrain_and_register_task(model: str, removals: list[str], config: UnlearnConfig, start: Start) -> RemovalOutcome:
    how = Retraining(start, config.alias, config.unknown_ids)
    with progress(f"Retraining {model}") as on_progress:
        return as_outcome(retrain(load_settings(), model, removals, on_progress, how))


_COMPUTING = {
    Stage.GRADIENTS: gradients_task,
    Stage.BLANKET: blanket_task,
    Stage.SURROGATE: surrogate_task,
    Stage.UPDATE: update_task,
    Stage.RETRAIN: retrain_task,
    Stage.AUDIT: audit_task,
    Stage.VALIDATE: validate_task,
}


@flow(name="unlearn", flow_run_name="unlearn-{model}")
def unlearn(model: str, removals: list[str], config: UnlearnConfig = UnlearnConfig()) -> RemovalOutcome:  # noqa: B008
    """Remove samples from a registered model: a new version with its evidence, or a refusal with its reasons.

    One way after another is tried until one is accepted; where all are refused, the recipe is run again without the
    samples if the configuration says so.

    Args:
        model: Which version to remove from: NAME (the head of its lineage: the challenger if it descends from the
            champion, else the champion), NAME@alias, or NAME/version.
        removals: URIs of removal sets: Parquet, CSV or JSON lines with a column sample_id or subject_id.
        config: How the removal is done and when it is refused. The defaults suit most models.
    """
    planned = plan_task(model, removals, config)
    logger = get_run_logger()
    for each in planned.ways:
        logger.info("Planned: %s, since %s (%s)", each.way.value, each.why, each.cost)

    def remove(one_way: UnlearnConfig) -> RemovalOutcome:
        job = fetch_task(model, removals, one_way)
        if isinstance(job, RemovalOutcome):
            return job
        for stage in computing_stages(job):
            _COMPUTING[stage](job)
        return register_task(job)

    def run_again(warm: bool) -> RemovalOutcome:
        return retrain_and_register_task(model, removals, config, Start.WARM if warm else Start.COLD)

    outcome = descend(planned.tried, config, remove, run_again)
    show_outcome(outcome, [each.row for each in planned.ways])
    return outcome
