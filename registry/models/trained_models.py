"""Registering a trained module with its training record: the way in for models trained anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from oubli.components.curvature.secant import Secant
from oubli.components.errors import NonFiniteInput
from oubli.components.gate.advice import ModelFacts, advice
from oubli.components.measures.measurement import measure
from oubli.components.model.gradients import PerSampleWay, per_sample_way
from oubli.components.model.losses import is_predictive
from oubli.components.model.objective import Objective
from oubli.components.model.per_sample import require_per_sample
from oubli.components.model.samples import Samples
from oubli.registry.errors import TrainingRecordError
from oubli.registry.models import tags
from oubli.registry.models.factors import keep_factor
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.model_registry import TRAINED_ALIAS, ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import (
    NewVersion,
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
from oubli.registry.training.held_out import held_out_rows
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import Split, TrainingRecord

_TRAINED = Lineage(method=Method.TRAINED, verdict="trained")


@dataclass(frozen=True)
class Provenance:
    """How a module came to be, beyond what its training record says. The defaults are those of a first training."""

    lineage: Lineage = _TRAINED
    """What the run says of its origin."""
    parent: RegisteredVersion | None = None
    """The version whose experiment the run joins."""
    without: frozenset[str] = frozenset()
    """Ids that it was not trained on although the data holds them."""
    version_tags: Mapping[str, str] = field(default_factory=dict)
    """Further tags of the version."""
    seconds: float | None = None
    """How long the training took, where that is known."""
    secant: Secant | None = None
    """How weights and gradients changed over the last epoch; kept with the curvature snapshot."""


_FIRST_TRAINING = Provenance()


def register_trained(
    name: str,
    module: nn.Module,
    record: TrainingRecord,
    *,
    settings: Settings | None = None,
    alias: str | None = TRAINED_ALIAS,
    provenance: Provenance = _FIRST_TRAINING,
    snapshot: bool | None = None,
) -> RegisteredVersion:
    """Measure a module on its training and test data, and register it as a new version, which is returned.

    Args:
        name: The registered model; it is made where there is none.
        module: The trained module, as the record's factory builds it.
        record: How it was trained.
        settings: Where to register it; by default what the environment says.
        alias: The alias that the version gets, if any.
        provenance: How the module came to be, for other than a first training.
        snapshot: Whether to keep the model's curvature with the version, at the cost of one pass over the training
            data. By default it is kept for a network and not for a convex model, whose removal takes two steps and
            needs the retained samples in any case. A secant is always kept with one.

    Raises:
        FactoryNotAllowed: An import string of the record lies outside the allow-list.
        ConfigurationError: The model or its loss has no per-sample form.
        RegistryError: The module does not fit the record's factory, or MLflow did not take it.
        DigestMismatch: The training data is other than the record says.
        TrainingDataError: The training data cannot be read.
        TrainingRecordError: The record's n is not the number of training rows.
        NonFiniteInput: A loss is NaN.
    """
    settings = settings or load_settings()
    registry = ModelRegistry(settings)
    trained = _TrainedModel.of(name, Recipe.of(record, settings), module, provenance.without, settings.store_root)
    metrics = _metrics(name, trained)
    method = provenance.lineage.method.value
    advised = advice(_facts(trained, metrics[Metric.RETAINED_GRADIENT_NORM]))
    version = register_version(
        registry,
        NewVersion(
            name=name,
            module=trained.module,
            signature=signature_for(trained.module, trained.recipe.example(trained.train.inputs)),
            example_value=trained.recipe.example_value,
            tags={
                tags.METHOD: method,
                tags.WEIGHTS_SHA256: trained.weights_sha256,
                tags.ADVICE: " ".join(advised),
                **_snapshot_tags(settings, trained, provenance.secant, snapshot),
                **store_record(settings.store_root, record),
                **provenance.version_tags,
            },
            description=_description(method, len(trained.train), advised),
        ),
        _run_record(experiment_for(registry, name, provenance.parent), name, record, provenance, metrics),
    )
    if alias is not None:
        set_alias(registry, version, alias)
    return version


@dataclass(frozen=True)
class _TrainedModel:
    """A module in the form that is registered, and the samples that it is measured on."""

    recipe: Recipe
    module: nn.Module
    objective: Objective
    train: Samples
    test: Samples

    @classmethod
    def of(
        cls, name: str, recipe: Recipe, module: nn.Module, without: frozenset[str], store_root: str
    ) -> _TrainedModel:
        module = recipe.module(module.state_dict())
        data = TrainingData.of(recipe.record)
        train = data.samples(Split.TRAIN, without=without).load()
        # On the rows that its removals will be reported on.
        test = held_out_rows(data, recipe.record, store_root).test.load()
        if recipe.record.n != len(train) + len(without):
            raise TrainingRecordError(
                f"The training record of {name} says n = {recipe.record.n}, but its data has "
                f"{len(train) + len(without)} training rows.",
                remedy="Give the number of rows that the model was trained on; the update's formula needs it.",
            )
        objective = recipe.objective(module)
        require_per_sample(objective, objective.theta(), train)
        return cls(recipe, module, objective, train, test)

    @cached_property
    def weights_sha256(self) -> str:
        return weights_digest(self.module.state_dict())


def _description(method: str, samples: int, advised: Sequence[str]) -> str:
    """How the version was made, and what its removals can expect, in Markdown."""
    made = f"{method.replace('_', ' ').capitalize()} on {samples} samples."
    return "\n".join([made, "", *(f"- {one}" for one in advised)])


def _facts(trained: _TrainedModel, gradient: float) -> ModelFacts:
    """What can be told of removals from the model; gradient: ||grad F||."""
    record, objective = trained.recipe.record, trained.objective
    bound = None
    if record.convex and record.l2:
        norm = float(objective.theta().norm())
        bound = gradient / record.l2 / norm if norm else math.inf
    return ModelFacts(
        convex=record.convex,
        named_loss=objective.kind is not None,
        predicts=is_predictive(objective.kind),
        validation=record.dataset.split.validation is not None,
        held_out=len(trained.test),
        one_by_one=per_sample_way(objective, objective.theta(), trained.train) is PerSampleWay.ONE_BY_ONE,
        relative_bound=bound,
    )


def _snapshot_tags(
    settings: Settings, trained: _TrainedModel, secant: Secant | None, wanted: bool | None
) -> dict[str, str]:
    """Keep the curvature snapshot where it is wanted, or a convex model's factor; the version tags that point to it."""
    record = trained.recipe.record
    if wanted is None and record.convex and record.l2 > 0 and secant is None:
        return keep_factor(settings.store_root, trained.objective, trained.train, budget_bytes=settings.memory_bytes)
    if wanted is None:
        wanted = not record.convex
    if not wanted and secant is None:
        return {}
    return keep_snapshot(
        settings.store_root,
        trained.objective,
        trained.train,
        trained.weights_sha256,
        seed=record.seed,
        secant=secant,
        budget_bytes=settings.memory_bytes,
    )


def _run_record(
    experiment_id: str, name: str, record: TrainingRecord, provenance: Provenance, metrics: Mapping[str, float]
) -> RunRecord:
    lineage, seconds = provenance.lineage, provenance.seconds
    return RunRecord(
        experiment_id=experiment_id,
        name=f"{lineage.method.value} {name}",
        params=lineage.params(record),
        metrics={
            **metrics,
            Metric.REMOVED_IN_ALL: float(lineage.removed_in_all),
            Metric.REMOVED_SINCE_TRAINING: 0.0,
            **({} if seconds is None else {Metric.SECONDS: seconds}),
        },
        artifacts={
            Artifact.TRAINING_RECORD: record.to_json(),
            Artifact.EVIDENCE: json.dumps({"request_ids": list(lineage.request_ids)}, indent=1),
        },
    )


def _metrics(name: str, trained: _TrainedModel) -> dict[str, float]:
    """Under the names that a removal's run uses, so that MLflow's comparison lines them up."""
    objective, train, test = trained.objective, trained.train, trained.test
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
