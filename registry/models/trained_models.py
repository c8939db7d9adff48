"""Registering a trained module with its training record: the entrance for models trained anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping

from torch import nn

from oubli.components.curvature.secant import Secant
from oubli.components.errors import NonFiniteInput
from oubli.components.measures.measurement import measure
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.registry.errors import TrainingRecordError
from oubli.registry.models import tags
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.model_registry import TRAINED_ALIAS, ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import (
    RunRecord,
    experiment_for,
    register_version,
    set_alias,
    signature_for,
    store_record,
)
from oubli.registry.models.snapshots import keep_snapshot
from oubli.registry.models.tags import Artifact, Metric
from oubli.registry.models.weights import weights_digest
from oubli.registry.settings import Settings, load_settings
from oubli.registry.training.decoders import example_value
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import Split, TrainingRecord

_TRAINED = Lineage(method=Method.TRAINED, verdict="trained")


def register_trained(
    name: str,
    module: nn.Module,
    record: TrainingRecord,
    *,
    settings: Settings | None = None,
    alias: str | None = TRAINED_ALIAS,
    lineage: Lineage = _TRAINED,
    without: frozenset[str] = frozenset(),
    version_tags: Mapping[str, str] | None = None,
    parent: RegisteredVersion | None = None,
    seconds: float | None = None,
    snapshot: bool | None = None,
    secant: Secant | None = None,
) -> RegisteredVersion:
    """Measure `module` on its training and test data and register it as a new version of `name`.

    without: ids that it was not trained on although the data holds them. seconds: how long training took, if known.
    snapshot: whether to keep the model's curvature with the version, at the cost of one pass over the training data;
    None keeps it unless the model is convex, whose removal takes two steps and needs the retained samples anyway.
    secant: of the training's last epochs, to be kept with the curvature, which it then always is.
    Raises FactoryNotAllowed, RegistryError where the module does not fit the record's factory, DigestMismatch,
    TrainingDataError, TrainingRecordError where the record's n is not the number of training rows, NonFiniteInput where
    a loss is NaN.
    """
    settings = settings or load_settings()
    registry = ModelRegistry(settings)
    recipe = Recipe.of(record, settings)
    module = recipe.module(module.state_dict())
    data = TrainingData.of(record)
    train, test = data.samples(Split.TRAIN, without=without).load(), data.samples(Split.TEST).load()
    if record.n != len(train) + len(without):
        raise TrainingRecordError(
            f"The training record of {name} says n = {record.n}, but its data has {len(train) + len(without)} "
            f"training rows.",
            remedy="Give the number of rows that the model was trained on; the update's formula needs it.",
        )
    objective = recipe.objective(module)
    metrics = _metrics(name, objective, train, test) | {
        Metric.REMOVED_IN_ALL: float(lineage.removed_in_all),
        Metric.REMOVED_SINCE_TRAINING: 0.0,
    }
    digest = weights_digest(module.state_dict())
    kept = (
        keep_snapshot(
            settings.store_root,
            objective,
            train,
            digest,
            seed=record.seed,
            secant=secant,
            budget_bytes=settings.memory_bytes,
        )
        if secant is not None or (not record.convex if snapshot is None else snapshot)
        else {}
    )
    version = register_version(
        registry,
        name=name,
        module=module,
        signature=signature_for(module, recipe.example(train.inputs)),
        example_value=example_value(record.decoder),
        experiment_id=experiment_for(registry, name, parent),
        run_name=f"{lineage.method.value} {name}",
        run_record=RunRecord(
            params=lineage.params(record),
            metrics=metrics if seconds is None else metrics | {Metric.SECONDS: seconds},
            artifacts={
                Artifact.TRAINING_RECORD: record.to_json(),
                Artifact.EVIDENCE: json.dumps({"request_ids": list(lineage.request_ids)}, indent=1),
            },
        ),
        version_tags={
            tags.METHOD: lineage.method.value,
            tags.WEIGHTS_SHA256: digest,
            **kept,
            **store_record(settings.store_root, record),
            **(version_tags or {}),
        },
        description=f"{lineage.method.value.capitalize()} on {len(train)} samples.",
    )
    if alias is not None:
        set_alias(registry, version, alias)
    return version


def _metrics(name: str, objective: Objective, train: Samples, test: Samples) -> dict[str, float]:
    """Under the names that a removal's run uses, so that MLflow's comparison lines them up."""
    measurement = measure(objective, objective.theta(), None, train, test)
    if len(test) and measurement.retained_membership is None:
        raise NonFiniteInput(
            f"Some losses of {name} on its training or test data are NaN.",
            remedy="Check the model's weights and the data.",
        )
    return {
        Metric.RETAINED_SAMPLES: float(len(train)),
        Metric.TEST_SAMPLES: float(len(test)),
        **measurement.metrics(),
    }
