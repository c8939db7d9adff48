"""The demo's data, models and removal set, and the table it ends with."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from rich.console import Console

from oubli.cli.tables import evidence_table, print_outcome, this_command
from oubli.components.model.losses import Loss
from oubli.flows.train import train
from oubli.flows.unlearn import unlearn
from oubli.registry.errors import ModelNotFound
from oubli.registry.models.model_registry import TRAINED_ALIAS, ModelRegistry, RegisteredVersion
from oubli.registry.models.tags import OF_PARENT, OF_RETRAINED, Metric
from oubli.registry.removals.outcome import RemovalOutcome
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join
from oubli.registry.training.train_spec import TrainSpec
from oubli.registry.training.training_record import FactoryReference, ImageDecoder
from oubli.registry.training.writing import write_training_data

_REMOVED = 25
_TEST_SHARE = 0.2
_SEED = 0
_PIXEL_MAX = 16  # the digits' grey levels run from 0 to 16
_REFERENCE = "oubli.components.reference"


@dataclass(frozen=True)
class _Model:
    name: str
    title: str
    factory: FactoryReference
    retrain: FactoryReference
    l2: float
    convex: bool


_MODELS = (
    _Model(
        "digits-logistic",
        "Multinomial logistic regression (convex)",
        FactoryReference(target=f"{_REFERENCE}.models:logistic_regression", kwargs={"features": 64, "classes": 10}),
        FactoryReference(target=f"{_REFERENCE}.training:fit_convex"),
        l2=1e-3,
        convex=True,
    ),
    _Model(
        "digits-cnn",
        "Small convolutional network",
        FactoryReference(
            target=f"{_REFERENCE}.models:small_cnn", kwargs={"height": 8, "width": 8, "channels": 1, "classes": 10}
        ),
        # Long enough to end near a minimum, which is where an update starts from.
        FactoryReference(target=f"{_REFERENCE}.training:fit_minibatch", kwargs={"epochs": 120}),
        l2=1e-3,
        convex=False,
    ),
)


def run_demo(console: Console, settings: Settings) -> None:
    """Train, remove, compare, print; whatever an earlier demo did is found and kept."""
    started = time.perf_counter()
    data_uri = _store_digits(settings)
    removals_uri = _store_removals(settings, data_uri)
    registry = ModelRegistry(settings)
    outcomes = []
    for model in _MODELS:
        console.rule(model.title, align="left")
        _ensure_trained(console, registry, _spec(model, data_uri))
        outcome = unlearn(f"{model.name}@{TRAINED_ALIAS}", [removals_uri], UnlearnConfig(compare_with_retraining=True))
        print_outcome(console, outcome)
        outcomes.append(outcome)
    console.rule("Result", align="left")
    for model, outcome in zip(_MODELS, outcomes, strict=True):
        _print_comparison(console, registry, model, outcome)
    _print_next_steps(console, registry, outcomes)
    console.print(f"{time.perf_counter() - started:.0f} s in all.")


def _store_digits(settings: Settings) -> str:
    """Write the digits as training data, unless an earlier demo did; their URI."""
    from sklearn.datasets import load_digits

    uri = join(settings.store_root, "data", "digits.parquet")
    if store_for(uri).exists(uri):
        return uri
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    is_test = np.random.default_rng(_SEED).random(len(images)) < _TEST_SHARE
    table = pa.table(
        {
            "sample_id": [f"digit-{number:04d}" for number in range(len(images))],
            "image": pa.array([image.tobytes() for image in images], pa.binary(64)),
            "label": pa.array(digits.target, pa.int32()),
            "split": np.where(is_test, "test", "train"),
        }
    )
    write_training_data(table, uri)
    return uri


def _store_removals(settings: Settings, data_uri: str) -> str:
    """Write a removal set of 25 random training samples; its URI."""
    import pyarrow.parquet as pq

    uri = join(settings.store_root, "removals", "demo.csv")
    table = pq.read_table(io.BytesIO(store_for(data_uri).read(data_uri)), columns=["sample_id", "split"])
    training_ids = [row["sample_id"] for row in table.to_pylist() if row["split"] == "train"]
    chosen = np.random.default_rng(_SEED + 1).choice(training_ids, _REMOVED, replace=False)
    lines = [f"{sample_id},demo-request,erasure requested" for sample_id in sorted(chosen)]
    store_for(uri).write(uri, "\n".join(["sample_id,request_id,reason", *lines, ""]).encode())
    return uri


def _spec(model: _Model, data_uri: str) -> TrainSpec:
    return TrainSpec(
        model=model.name,
        dataset_uri=data_uri,
        decoder=ImageDecoder(column="image", height=8, width=8, channels=1, scale=1 / _PIXEL_MAX),
        loss=Loss.CROSS_ENTROPY,
        l2=model.l2,
        seed=_SEED,
        factory=model.factory,
        retrain=model.retrain,
        convex=model.convex,
        alias=TRAINED_ALIAS,
    )


def _ensure_trained(console: Console, registry: ModelRegistry, spec: TrainSpec) -> RegisteredVersion:
    try:
        version = registry.by_alias(spec.model, TRAINED_ALIAS)
    except ModelNotFound:
        version = train(spec)
        console.print(f"{spec.model}: trained and registered as version {version.version}, @{TRAINED_ALIAS}")
    else:
        console.print(f"{spec.model}: version {version.version} is @{TRAINED_ALIAS} already")
    return version


def _print_comparison(console: Console, registry: ModelRegistry, model: _Model, outcome: RemovalOutcome) -> None:
    if outcome.run_id is None:
        return
    parent = registry.version(model.name, outcome.parent_version)
    metrics = dict(registry.client.get_run(outcome.run_id).data.metrics)
    if parent.run_id is not None:
        metrics[Metric.SECONDS + OF_PARENT] = registry.client.get_run(parent.run_id).data.metrics[Metric.SECONDS]
    columns = {
        f"Original (version {outcome.parent_version})": OF_PARENT,
        f"Unlearned (version {outcome.version or 'refused'})": "",
        "Retrained without them": OF_RETRAINED,
    }
    console.print(evidence_table(f"{model.title}: {_REMOVED} samples removed", columns, metrics))


def _print_next_steps(console: Console, registry: ModelRegistry, outcomes: list[RemovalOutcome]) -> None:
    console.print("\nLook at it: run [bold]make serve[/bold], then open")
    for outcome in outcomes:
        if outcome.version is not None:
            parent = registry.version(outcome.model, outcome.parent_version)
            console.print(f"  {comparison_url(parent, outcome)}", soft_wrap=True, highlight=False)
    console.print("  http://127.0.0.1:4200/runs", highlight=False)
    console.print("Evidence in the terminal: " + ", ".join(_show_commands(outcomes)), soft_wrap=True)


def comparison_url(parent: RegisteredVersion, outcome: RemovalOutcome) -> str:
    """MLflow's page that compares a removal's version with its parent, on the local server."""
    name = json.dumps(quote(parent.name))
    versions = json.dumps({parent.version: parent.run_id, outcome.version: outcome.run_id}, separators=(",", ":"))
    return f"http://127.0.0.1:5000/#/compare-model-versions?name={quote(name)}&runs={quote(versions)}"


def _show_commands(outcomes: list[RemovalOutcome]) -> list[str]:
    registered = [outcome for outcome in outcomes if outcome.version is not None]
    return [f"{this_command()} show {outcome.model} {outcome.version}" for outcome in registered]
