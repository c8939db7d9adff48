"""The removal flow: it names the removal, runs its stages in their order, and shows how it ended.

A task whose stage is finished in the work area returns at once, on any machine: that is how a run resumes.
"""

from __future__ import annotations

from prefect import flow, task

from oubli.flows.job.facts import Stage
from oubli.flows.runtime.outcome_page import show_outcome
from oubli.flows.runtime.progress import progress
from oubli.flows.runtime.retries import COMPUTES, READS_AND_WRITES
from oubli.flows.stages.block import blanket
from oubli.flows.stages.fetch import fetch
from oubli.flows.stages.gradients import gradients
from oubli.flows.stages.register import register
from oubli.flows.stages.retrain import retrain_reference
from oubli.flows.stages.sequence import computing_stages
from oubli.flows.stages.update import update
from oubli.flows.stages.validate import validate
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import RemovalOutcome
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import load_settings


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


@task(name="removal update", **COMPUTES)
def update_task(job: RemovalJob) -> None:
    with progress("Removal update") as on_progress:
        update(load_settings(), job, on_progress)


@task(name="retrain for comparison", **COMPUTES)
def retrain_task(job: RemovalJob) -> None:
    with progress("Retraining for comparison") as on_progress:
        retrain_reference(load_settings(), job, on_progress)


@task(name="validate", **COMPUTES)
def validate_task(job: RemovalJob) -> None:
    validate(load_settings(), job)


@task(name="register", **READS_AND_WRITES)
def register_task(job: RemovalJob) -> RemovalOutcome:
    return register(load_settings(), job)


_COMPUTING = {
    Stage.GRADIENTS: gradients_task,
    Stage.BLANKET: blanket_task,
    Stage.UPDATE: update_task,
    Stage.RETRAIN: retrain_task,
    Stage.VALIDATE: validate_task,
}


@flow(name="unlearn", flow_run_name="unlearn-{model}")
def unlearn(model: str, removals: list[str], config: UnlearnConfig = UnlearnConfig()) -> RemovalOutcome:  # noqa: B008
    """Remove samples from a registered model: a new version with its evidence, or a refusal with its reasons.

    Args:
        model: Which version to remove from: NAME (the head of its lineage: the challenger if it descends from the
            champion, else the champion), NAME@alias, or NAME/version.
        removals: URIs of removal sets: Parquet, CSV or JSON lines with a column sample_id or subject_id.
        config: How the removal is done and when it is refused. The defaults suit most models.
    """
    job = fetch_task(model, removals, config)
    if isinstance(job, RemovalOutcome):
        outcome = job
    else:
        for stage in computing_stages(config):
            _COMPUTING[stage](job)
        outcome = register_task(job)
    show_outcome(outcome)
    return outcome
