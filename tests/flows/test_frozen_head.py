"""A linear head on a frozen text encoder, from end to end: trained, removed from, retrained, served."""

from __future__ import annotations

from collections.abc import Iterator

import blobs
import mlflow
import numpy as np
import pyarrow as pa
import pytest
import torch

from oubli.components.blocks.choosing import BlockChoice
from oubli.flows.training.retrain import retrain
from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.unlearn_config import SnapshotUse, UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.uris import join
from oubli.registry.training.train_spec import TrainSpec
from oubli.registry.training.training_record import FactoryReference, TokensDecoder
from oubli.registry.training.writing import write_training_data

WORDS, LENGTH, WIDTH, CLASSES, ROWS = 40, 9, 8, 3, 240
PREFIXES = "oubli.components.reference,scoped_network"
COMPARED = UnlearnConfig(compare_with_retraining=True)


def table() -> pa.Table:
    """Texts of 2 to 12 words; each class prefers words of its own. 0 is padding, 1 opens every text."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, ROWS)
    odds = np.ones((CLASSES, WORDS - 2))
    for label in range(CLASSES):
        odds[label, 8 * label : 8 * label + 8] = 4
    texts = [
        [1, *(2 + random.choice(WORDS - 2, random.integers(2, 13), p=odds[label] / odds[label].sum()))]
        for label in labels
    ]
    return pa.table(
        {
            "sample_id": [f"sample-{number:04d}" for number in range(ROWS)],
            "tokens": pa.array(texts, pa.list_(pa.int32())),
            "label": pa.array(labels, pa.int32()),
            "split": np.where(np.arange(ROWS) % blobs.TEST_EVERY == 0, "test", "train"),
        }
    )


# What a store does with snapshots and weights is tested in test_removal.py; here the local one is enough.
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("settings", ["local"], indirect=True, scope="module")]


@pytest.fixture(scope="module")
def allowing(settings: Settings) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUBLI_FACTORY_PREFIXES", PREFIXES)
        yield Settings()


@pytest.fixture(scope="module")
def spec(allowing: Settings) -> TrainSpec:
    uri = join(allowing.store_root, "data", "texts.parquet")
    write_training_data(table(), uri)
    return TrainSpec.model_validate(
        {
            "model": "texts",
            "dataset_uri": uri,
            "decoder": TokensDecoder(length=LENGTH, vocabulary=WORDS, special=(1,)),
            "loss": "cross_entropy",
            "l2": 1e-2,
            "factory": FactoryReference(
                target="scoped_network:build_texts", kwargs={"vocabulary": WORDS, "width": WIDTH, "classes": CLASSES}
            ),
            "retrain": FactoryReference(target=f"{blobs.REFERENCE}.training:fit_convex"),
            "convex": True,
            "trained": ("head",),
            "snapshot": True,
        }
    )


@pytest.fixture(scope="module")
def first(allowing: Settings, spec: TrainSpec) -> RegisteredVersion:
    return train(allowing, spec)


@pytest.fixture(scope="module")
def outcome(allowing: Settings, first: RegisteredVersion) -> RemovalOutcome:
    removals = blobs.sample_removals(allowing, "texts.csv", range(1, 13))
    return blobs.remove(allowing, "texts", [removals], COMPARED)


def moved(registry: ModelRegistry, one: str, other: str) -> set[str]:
    first, second = (registry.weights(registry.version("texts", version)) for version in (one, other))
    assert set(first) == set(second)
    return {name for name in first if not torch.equal(first[name], second[name])}


def test_the_update_lands_where_retraining_does(allowing: Settings, outcome: RemovalOutcome) -> None:
    assert (outcome.status, outcome.version) == (Status.REGISTERED, "2")
    metrics = ModelRegistry(allowing).client.get_run(outcome.run_id).data.metrics
    # float32 weights: rounding alone is about 1e-5 of the distance that removing ten samples moves them.
    assert metrics["parameter_distance_to_retrained"] < 1e-3
    assert metrics["retained_gradient_norm"] < 1e-3 * metrics["retained_gradient_norm_parent"]
    assert metrics["test_loss"] == pytest.approx(metrics["test_loss_retrained"], abs=1e-5)


def test_the_head_alone_moves(allowing: Settings, outcome: RemovalOutcome) -> None:
    registry = ModelRegistry(allowing)
    assert moved(registry, "1", "2") == {"head.weight", "head.bias"}
    run = registry.client.get_run(outcome.run_id).data
    assert run.params["trained_parameters"] == "head"
    assert run.params["selection"] == "full"


def test_a_retraining_keeps_the_frozen_backbone(allowing: Settings, outcome: RemovalOutcome) -> None:
    registry = ModelRegistry(allowing)
    retrained = retrain(allowing, "texts", []).version
    assert moved(registry, outcome.version or "", retrained.version) <= {"head.weight", "head.bias"}
    one, other = (registry.weights(registry.version("texts", each)) for each in ("2", retrained.version))
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-5)


def test_it_serves_token_ids_in_batches_of_any_size(allowing: Settings, outcome: RemovalOutcome) -> None:
    registry = ModelRegistry(allowing)
    version = registry.version("texts", outcome.version or "")
    (inputs,) = registry.signature(version).inputs.inputs
    assert (inputs.type, inputs.shape) == (np.dtype(np.int64), (-1, LENGTH))
    served = mlflow.pyfunc.load_model(version.uri)
    for rows in (1, 2, 5):
        tokens = np.random.default_rng(rows).integers(2, WORDS, (rows, LENGTH))
        assert served.predict(tokens).shape == (rows, CLASSES)


def test_one_step_from_the_snapshot_reads_no_retained_sample(allowing: Settings, first: RegisteredVersion) -> None:
    assert "oubli.snapshot" in first.tags
    removals = blobs.sample_removals(allowing, "from-snapshot.csv", range(1, 6))
    config = COMPARED.model_copy(update={"use_snapshot": SnapshotUse.ALWAYS})
    outcome = blobs.remove(allowing, "texts/1", [removals], config)
    run = ModelRegistry(allowing).client.get_run(outcome.run_id).data
    assert run.params["curvature"] == "snapshot (dense)"
    # One step leaves an error of second order.
    assert run.metrics["parameter_distance_to_retrained"] < 0.1


def test_a_blanket_of_words_is_selected(allowing: Settings, first: RegisteredVersion) -> None:
    removals = blobs.sample_removals(allowing, "blanket.csv", range(1, 3))
    config = UnlearnConfig(selection=BlockChoice.L_FOCI, perturbations=60, token_replacements=2)
    outcome = blobs.remove(allowing, "texts/1", [removals], config)
    run = ModelRegistry(allowing).client.get_run(outcome.run_id).data
    assert run.params["selection"] == "l_foci"
