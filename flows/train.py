"""The training flows: the first version of a model, and retraining where an update cannot be trusted."""

from __future__ import annotations

from prefect import flow, get_run_logger, task

from oubli.flows.runtime.progress import progress
from oubli.flows.runtime.retries import COMPUTES
from oubli.flows.training.retrain import Retrained
from oubli.flows.training.retrain import retrain as retrain_and_register
from oubli.flows.training.train import train as train_and_register
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.settings import load_settings
from oubli.registry.training.train_spec import TrainSpec


@task(name="train and register", **COMPUTES)
def train_task(spec: TrainSpec) -> RegisteredVersion:
    with progress(f"Training {spec.model}") as on_progress:
        return train_and_register(load_settings(), spec, on_progress)


@task(name="retrain and register", **COMPUTES)
def retrain_task(model: str, removals: list[str]) -> Retrained:
    with progress(f"Retraining {model}") as on_progress:
        return retrain_and_register(load_settings(), model, removals, on_progress)


@flow(name="train", flow_run_name="train-{spec.model}")
def train(spec: TrainSpec) -> RegisteredVersion:
    """Train a model, register it with its training record, and set its alias.

    Args:
        spec: The model's name, data, recipe and alias.
    """
    return train_task(spec)


@flow(name="retrain", flow_run_name="retrain-{model}")
def retrain(model: str, removals: list[str]) -> Retrained:
    """Train a registered version's recipe again without removed samples; the result becomes the challenger.

    Args:
        model: NAME, NAME@alias or NAME/version.
        removals: URIs of removal sets; may be empty, to leave out only what earlier versions removed.
    """
    retrained = retrain_task(model, removals)
    if retrained.advice:
        get_run_logger().warning(retrained.advice)
    return retrained
