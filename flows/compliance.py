"""The scheduled flow: everything that waits in the inbox, one removal per model."""

from __future__ import annotations

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from oubli.flows.runtime.retries import READS_AND_WRITES
from oubli.flows.unlearn import unlearn
from oubli.registry.errors import RemovalSetError, UnknownIdsError
from oubli.registry.removals.asked import check_removals
from oubli.registry.removals.inbox import reject, settle, waiting
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import load_settings
from oubli.registry.storage.stores import store_for


@task(name="look into the inbox", **READS_AND_WRITES)
def waiting_task(models: list[str] | None) -> dict[str, list[str]]:
    return waiting(load_settings().store_root, models)


@task(name="check removal files", **READS_AND_WRITES)
def check_task(model: str, files: list[str], config: UnlearnConfig) -> list[str]:
    """The usable files; the others are moved aside, so that one bad file does not hold up the rest."""
    settings = load_settings()
    usable = []
    for uri in files:
        if not store_for(uri).exists(uri):
            continue  # moved by an attempt that then lost the store
        try:
            check_removals(settings, model, [uri], config.unknown_ids)
        # Only what is the file's own fault; trouble with the model leaves it where it is.
        except (RemovalSetError, UnknownIdsError) as error:
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
    done: dict[str, str] = {}
    failed: dict[str, str] = {}
    refused: list[str] = []
    rejected = 0
    for model, files in waiting_task(models).items():
        checked = check_task(model, files, config, return_state=True)
        if not checked.is_completed():
            failed[model] = checked.message or ""
            continue
        usable = checked.result()
        rejected += len(files) - len(usable)
        if not usable:
            continue
        # As states: whatever goes wrong with one model, the others are still to be done.
        removal = unlearn(model, usable, config, return_state=True)
        if not removal.is_completed():
            failed[model] = removal.message or ""
            continue
        outcome = removal.result()
        settle_task(model, usable, outcome)
        done[model] = outcome.status.value
        if outcome.status is Status.REFUSED:
            refused.append(model)
    if failed:
        return Failed(message="; ".join(f"{model}: {message}" for model, message in failed.items()))
    # Names of their own, so that an automation can call a person.
    if refused:
        return Completed(name="Refused", message=f"To be retrained: {', '.join(refused)}. Rejected files: {rejected}.")
    if rejected:
        return Completed(name="Rejected", message=f"{rejected} files could not be used; see the rejected prefix.")
    return Completed(message=", ".join(f"{model}: {status}" for model, status in done.items()) or "Inbox empty.")
