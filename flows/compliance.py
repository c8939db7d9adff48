"""The scheduled flow: everything that waits in the inbox, one removal per model."""

from __future__ import annotations

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from oubli.components.errors import DataError, OubliError
from oubli.flows.retries import READS_AND_WRITES
from oubli.flows.stages.fetch import check_removals
from oubli.flows.unlearn import unlearn
from oubli.registry.removals.inbox import reject, settle, waiting
from oubli.registry.removals.removal_job import RemovalOutcome, Status, UnlearnConfig
from oubli.registry.settings import load_settings


@task(name="look into the inbox", **READS_AND_WRITES)
def waiting_task(models: list[str] | None) -> dict[str, list[str]]:
    return waiting(load_settings().store_root, models)


@task(name="check removal files", **READS_AND_WRITES)
def check_task(model: str, files: list[str], config: UnlearnConfig) -> list[str]:
    """The usable files; the others are moved aside, so that one bad file does not hold up the rest."""
    settings = load_settings()
    usable = []
    for uri in files:
        try:
            check_removals(settings, model, [uri], config)
        except DataError as error:
            moved = reject(settings.store_root, model, uri, error)
            get_run_logger().warning("Rejected a removal file, now at %s: %s", moved, error)
        else:
            usable.append(uri)
    return usable


@task(name="file the outcome", **READS_AND_WRITES)
def settle_task(model: str, files: list[str], outcome: RemovalOutcome) -> None:
    settle(load_settings().store_root, model, files, outcome)


@flow(name="compliance")
def compliance(models: list[str] | None = None, config: UnlearnConfig = UnlearnConfig()) -> State[None]:  # noqa: B008
    """Take every removal file in the inbox of each model and run one removal per model with all of them.

    What was taken is moved to the processed prefix with its outcome; what cannot be used, to the rejected prefix
    with the reason. A model that fails does not hold up the others: its files stay in the inbox.

    Args:
        models: Only these models' inboxes; empty for all.
        config: How the removals are done and when they are refused.
    """
    outcomes: dict[str, str] = {}
    failures: dict[str, OubliError] = {}
    for model, files in waiting_task(models).items():
        try:
            usable = check_task(model, files, config)
            if not usable:
                continue
            outcome = unlearn(model, usable, config)
            settle_task(model, usable, outcome)
        except OubliError as error:
            failures[model] = error
        else:
            outcomes[model] = outcome.status.value
    if failures:
        return Failed(message="; ".join(f"{model}: {error}" for model, error in failures.items()))
    if Status.REFUSED.value in outcomes.values():
        refused = sorted(model for model, status in outcomes.items() if status == Status.REFUSED.value)
        # A name of its own, so that an automation can call a person: these models need retraining.
        return Completed(name="Refused", message=f"Refused, to be retrained: {', '.join(refused)}.")
    return Completed(message=", ".join(f"{model}: {status}" for model, status in outcomes.items()) or "Inbox empty.")
