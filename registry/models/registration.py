"""Writing to MLflow: a run with its record, its model, and last of all the registered version.

Order matters. The version appears only when everything it points to is complete and verified; a run that is
killed before leaves an MLflow run RUNNING and a logged model PENDING, which the next attempt at the same removal
closes. Nothing of an existing version, run or model is ever changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import mlflow.pytorch
import numpy as np
import torch
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, infer_signature

from oubli.components.model.attention import differentiable_attention
from oubli.registry.errors import RegistryError
from oubli.registry.models import tags
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion, as_registered
from oubli.registry.models.pt2_weights import read_pt2_weights
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.storage.scratch import temporary_folder
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

if TYPE_CHECKING:
    from torch import Tensor, nn

    from oubli.registry.training.training_record import TrainingRecord


@dataclass(frozen=True)
class RunRecord:
    """What an MLflow run shows. Metrics and params bear the same names in parent and child, so that MLflow's comparison
    lines them up. No ids of samples or subjects in any of it."""

    experiment_id: str
    """The experiment that the run belongs to."""
    name: str
    """The run's name."""
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    artifacts: Mapping[str, str] = field(default_factory=dict)
    """Text artifacts by path within the run."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NewVersion:
    """What a version of a registered model is made of."""

    name: str
    """The registered model; it is made where there is none."""
    module: nn.Module
    signature: ModelSignature
    """Inputs and outputs as tensors."""
    tags: Mapping[str, str]
    description: str
    """Markdown."""
    example_value: int = 0
    """What the example input logged with the model is filled with."""


def store_record(store_root: str, record: TrainingRecord) -> dict[str, str]:
    """Put a training record on the object store.

    Returns:
        The version tags that point to it.

    Raises:
        StoreError: The store cannot be written.
    """
    data = record.to_json().encode()
    digest = bytes_digest(data)
    uri = join(store_root, "records", f"{digest}.json")
    store_for(uri).write(uri, data)
    return {tags.RECORD: uri, tags.RECORD_SHA256: digest}


def attach_record(registry: ModelRegistry, version: RegisteredVersion, record: TrainingRecord) -> None:
    """Give a version that was registered elsewhere its training record.

    Args:
        registry: The model registry.
        version: The version.
        record: How it was trained.

    Raises:
        StoreError: The object store cannot be written.
    """
    # The digest first: a version with a record and no digest would be one that nobody can check.
    for name, value in sorted(store_record(registry.settings.store_root, record).items(), reverse=True):
        registry.client.set_model_version_tag(version.name, version.version, name, value)


def log_run(registry: ModelRegistry, run_record: RunRecord) -> str:
    """Log a finished run without a model, as a refusal leaves one.

    Returns:
        The run's id.
    """
    with _started_run(registry, run_record) as run_id:
        return run_id


def register_version(registry: ModelRegistry, new: NewVersion, run_record: RunRecord) -> RegisteredVersion:
    """Log a module with its run and register it as a new version.

    The logged weights are read back and compared bit for bit before the version is made.

    Args:
        registry: The model registry.
        new: What the version is made of.
        run_record: What its run shows.

    Raises:
        RegistryError: The module cannot be exported, or the logged weights differ from its own.
    """
    client = registry.client
    with _started_run(registry, run_record) as run_id:
        model_id = _log_module(new.module, new.signature, new.example_value)
        _verify_logged(model_id, new.module)
    if new.name not in {model.name for model in client.search_registered_models(f"name = '{new.name}'")}:
        client.create_registered_model(new.name)
    created = client.create_model_version(
        new.name,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        tags=dict(new.tags),
        description=new.description,
    )
    return as_registered(created)


def set_alias(registry: ModelRegistry, version: RegisteredVersion, alias: str) -> None:
    """Move `alias` to `version` in one step."""
    registry.client.set_registered_model_alias(version.name, alias, version.version)


def close_unfinished_runs(registry: ModelRegistry, experiment_id: str, removal_key: str) -> int:
    """Close what a killed attempt at the same removal left open: its run becomes KILLED, its pending model FAILED.

    Args:
        registry: The model registry.
        experiment_id: The experiment that the runs belong to.
        removal_key: The removal.

    Returns:
        How many runs were closed.
    """
    client = registry.client
    open_runs = client.search_runs(
        [experiment_id], f"tags.`{tags.REMOVAL_KEY}` = '{removal_key}' and attributes.status = 'RUNNING'"
    )
    for run in open_runs:
        for model in client.search_logged_models([experiment_id], f"source_run_id = '{run.info.run_id}'"):
            if model.status == LoggedModelStatus.PENDING:
                client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        client.set_terminated(run.info.run_id, status="KILLED")
    return len(open_runs)


def experiment_for(registry: ModelRegistry, name: str, parent: RegisteredVersion | None = None) -> str:
    """The experiment to log in: the parent's, so that both stand in one table, else one named after the model.

    Args:
        registry: The model registry.
        name: The registered model.
        parent: The version that the new one comes from, if any.

    Returns:
        The experiment's id; it is made where there is none.
    """
    if parent is not None and parent.run_id is not None:
        return str(registry.client.get_run(parent.run_id).info.experiment_id)
    if (existing := registry.client.get_experiment_by_name(name)) is not None:
        return str(existing.experiment_id)
    # Somebody's MLflow server decides for itself where artifacts go; the embedded one keeps them with our objects.
    embedded = registry.settings.embedded_tracking
    location = join(registry.settings.store_root, "mlflow", name) if embedded else None
    return str(registry.client.create_experiment(name, artifact_location=location))


def signature_for(module: nn.Module, example: Tensor) -> ModelSignature:
    """The signature of a module, with the batch axis left open.

    Args:
        module: The module; it is put into evaluation mode.
        example: (2, ...) inputs, of no real sample.
    """
    # Without attention's fused path, which warns of its own prototypes.
    with torch.no_grad(), differentiable_attention():
        output = module.eval()(example)
    return infer_signature(example.numpy(), output.numpy())


@contextmanager
def _started_run(registry: ModelRegistry, run_record: RunRecord) -> Iterator[str]:
    """A run with its record logged, active while the body runs and finished afterwards; yields its id."""
    run = registry.client.create_run(run_record.experiment_id, run_name=run_record.name, tags=dict(run_record.tags))
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_params(dict(run_record.params))
        mlflow.log_metrics(dict(run_record.metrics))
        for path, text in run_record.artifacts.items():
            mlflow.log_text(text, path)
        yield str(run.info.run_id)


def _log_module(module: nn.Module, signature: ModelSignature, example_value: int) -> str:
    if signature.inputs is None or not signature.inputs.is_tensor_spec():
        raise RegistryError(
            "The model's signature has no tensor inputs, which a torch.export archive needs.",
            remedy="Register the parent with a tensor signature (mlflow.models.infer_signature on numpy arrays).",
        )
    # One value throughout, never a real sample: the example is stored with the model for everyone to see. Two rows,
    # because torch.export takes an axis of size one for a constant.
    example = [
        np.full([2 if size == -1 else size for size in spec.shape], example_value, dtype=spec.type)
        for spec in signature.inputs.inputs
    ]
    with warnings.catch_warnings():
        # torch.export's own tracer warns about its internals; nothing a user could act on.
        warnings.simplefilter("ignore")
        try:
            info = mlflow.pytorch.log_model(
                module.eval(),
                name="model",
                signature=signature,
                input_example=example[0],
                # Given, because MLflow would otherwise start a process per model to find them out.
                pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"numpy=={np.__version__}"],
            )
        except MlflowException as error:
            raise RegistryError(
                f"MLflow could not log the model: {error}.", remedy="Check the MLflow server."
            ) from error
    return str(info.model_id)


def _verify_logged(model_id: str, module: nn.Module) -> None:
    with temporary_folder() as folder:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model_id}", dst_path=str(folder)))
        logged = read_pt2_weights(next(root.rglob("*.pt2")))
    expected = module.state_dict()
    wrong = [name for name in expected if name not in logged or not torch.equal(expected[name], logged[name])]
    if wrong:
        raise RegistryError(
            f"The logged model differs from the one that was meant: {', '.join(wrong[:5])}.",
            remedy="Nothing was registered. Check the artifact store, then run again.",
        )
