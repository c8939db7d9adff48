"""Wrong input: each ends in one error that names the thing, the reason and the remedy, and changes nothing."""

from __future__ import annotations

import os
import socket
import warnings

import blobs
import mlflow
import numpy as np
import pytest

from oubli.components.errors import ConfigurationError, OubliError
from oubli.components.gate.limits import GateLimits
from oubli.components.reference.models import logistic_regression
from oubli.flows.stages.fetch import fetch
from oubli.flows.training.train import train
from oubli.registry.errors import (
    DigestMismatch,
    FactoryNotAllowed,
    ModelNotFound,
    PickledModelRefused,
    RegistryError,
    RemovalSetError,
    StoreAccessDenied,
    StoreUnreachable,
    TrainingDataError,
    TrainingRecordError,
    UnknownIdsError,
)
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import attach_record
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.removal_set import UnknownIds
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join
from oubli.registry.training import dataset_files
from oubli.registry.training.writing import write_training_data

# Whole removals, seconds each.
pytestmark = pytest.mark.slow

S3_VARIABLE = "OUBLI_TEST_S3_URL"


@pytest.fixture
def removals(settings: Settings) -> str:
    return blobs.sample_removals(settings, "good.csv", range(1, 4))


def _versions(settings: Settings, name: str) -> int:
    return len(ModelRegistry(settings).client.search_model_versions(f"name = '{name}'"))


def _refused(settings: Settings, model: str, removals: list[str]) -> OubliError:
    """The error that a removal ends in."""
    with pytest.raises(OubliError) as caught:
        fetch(settings, model, removals, UnlearnConfig())
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ("nobody", ModelNotFound, ["'nobody'", "convex"]),
        ("nobody@champion", ModelNotFound, ["'nobody'", "convex"]),
        ("convex@production", ModelNotFound, ["'production'", "@champion (version 1)"]),
        ("convex/99", ModelNotFound, ["version 99", "[1]"]),
        ("convex@", ConfigurationError, ["'convex@'", "NAME@alias"]),
        ("convex/one", ConfigurationError, ["'convex/one'", "NAME/version"]),
    ],
)
def test_unknown_model(
    settings: Settings, convex: RegisteredVersion, removals: str, model: str, kind: type[OubliError], words: list[str]
) -> None:
    error = _refused(settings, model, [removals])
    assert type(error) is kind
    assert all(word in str(error) for word in words)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.csv", "", ["empty.csv", "empty"]),
        ("header.csv", "sample_id\n", ["header.csv", "empty"]),
        ("no-id.csv", "name,reason\nx,y\n", ["no-id.csv", "sample_id or subject_id"]),
        ("broken.parquet", "PAR1 but not really", ["broken.parquet", "corrupt"]),
        # The open quotation mark would take the lines after it into its value.
        ("unclosed.csv", 'sample_id,reason\nsample-0001,"oops\nsample-0002,ok\n', ["unclosed.csv", "quotation"]),
        ("broken.jsonl", '{"sample_id": "sam', ["broken.jsonl", "line 1"]),
    ],
)
def test_unusable_removal_set(
    settings: Settings, convex: RegisteredVersion, name: str, text: str, words: list[str]
) -> None:
    error = _refused(settings, "convex", [blobs.write_removals(settings, name, text)])
    assert type(error) is RemovalSetError
    assert all(word in str(error) for word in words)


def test_missing_removal_set(settings: Settings, convex: RegisteredVersion) -> None:
    error = _refused(settings, "convex", [join(settings.store_root, "removals", "none.csv")])
    assert type(error) is RemovalSetError
    assert "none.csv is missing" in str(error)


def test_unknown_ids_are_named_by_row_and_not_shown(settings: Settings, convex: RegisteredVersion) -> None:
    removals = blobs.write_removals(settings, "unknown.csv", "sample_id\nsample-0001\nsecret-id\n")
    error = _refused(settings, "convex", [removals])
    assert type(error) is UnknownIdsError
    assert "unknown.csv row 2" in str(error)
    assert "secret-id" not in str(error)


def test_unknown_ids_can_be_reported(settings: Settings, convex: RegisteredVersion) -> None:
    removals = blobs.write_removals(settings, "all-unknown.csv", "sample_id\nsecret-id\n")
    outcome = fetch(settings, "convex", [removals], UnlearnConfig(unknown_ids=UnknownIds.REPORT))
    assert isinstance(outcome, RemovalOutcome)
    assert (outcome.status, outcome.unknown) == (Status.NOTHING_TO_REMOVE, 1)


def test_test_rows_cannot_be_removed(settings: Settings, convex: RegisteredVersion) -> None:
    error = _refused(settings, "convex", [blobs.write_removals(settings, "test-row.csv", "sample_id\nsample-0000\n")])
    assert type(error) is UnknownIdsError


def test_removing_everything(settings: Settings, convex: RegisteredVersion) -> None:
    error = _refused(settings, "convex", [blobs.sample_removals(settings, "all.csv", range(blobs.ROWS))])
    assert type(error) is RemovalSetError
    assert "all 200 samples" in str(error)


def test_training_data_changed(settings: Settings, removals: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = join(settings.store_root, "data", "changed.parquet")
    write_training_data(blobs.table(), uri, subject_column="person")
    train(settings, blobs.spec("changed", uri))
    write_training_data(blobs.table().slice(0, 120), uri, subject_column="person")
    # As in a new process, which has downloaded nothing yet.
    monkeypatch.setattr(dataset_files, "_downloads", {})
    error = _refused(settings, "changed", [removals])
    assert type(error) is DigestMismatch
    assert "changed.parquet" in str(error)


def test_training_data_gone(settings: Settings, removals: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = join(settings.store_root, "data", "gone.parquet")
    write_training_data(blobs.table(), uri, subject_column="person")
    train(settings, blobs.spec("gone", uri))
    store_for(uri).delete(uri)
    # As in a new process, which has downloaded nothing yet.
    monkeypatch.setattr(dataset_files, "_downloads", {})
    assert "gone.parquet" in str(_refused(settings, "gone", [removals]))


def test_no_test_rows(settings: Settings, data_uri: str, removals: str) -> None:
    table = blobs.table()
    uri = join(settings.store_root, "data", "untested.parquet")
    write_training_data(table.filter([split == "train" for split in table.column("split").to_pylist()]), uri)
    train(settings, blobs.spec("untested", uri, subject_column=None))
    error = _refused(settings, "untested", [removals])
    assert type(error) is TrainingDataError
    assert "no rows whose split is 'test'" in str(error)


def _log_elsewhere(registry: ModelRegistry, name: str, serialization_format: str) -> RegisteredVersion:
    """A model that somebody registered without Oubli."""
    with mlflow.start_run(experiment_id=registry.client.create_experiment(name)), warnings.catch_warnings():
        # torch.export and pickling both warn about their own internals.
        warnings.simplefilter("ignore")
        mlflow.pytorch.log_model(
            logistic_regression(blobs.FEATURES, blobs.CLASSES),
            name="model",
            registered_model_name=name,
            serialization_format=serialization_format,
            input_example=np.zeros((2, blobs.FEATURES), np.float32),
            pip_requirements=["torch"],
        )
    return registry.version(name, "1")


def test_version_without_training_record(
    settings: Settings, convex: RegisteredVersion, removals: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    registry = ModelRegistry(settings)
    version = _log_elsewhere(registry, "stranger", "pt2")
    error = _refused(settings, "stranger/1", [removals])
    assert type(error) is TrainingRecordError
    assert "stranger/1 has no training record" in str(error)
    # The remedy works: a record can be attached later.
    attach_record(registry, version, registry.training_record(convex))
    outcome = blobs.remove(settings, "stranger/1", [removals], UnlearnConfig(limits=GateLimits(accuracy_drop=1.0)))
    assert outcome.version in ("2", None)


def test_pickled_model_is_refused_unless_allowed(
    settings: Settings, convex: RegisteredVersion, removals: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    registry = ModelRegistry(settings)
    version = _log_elsewhere(registry, "pickled", "pickle")
    attach_record(registry, version, registry.training_record(convex))
    error = _refused(settings, "pickled/1", [removals])
    assert type(error) is PickledModelRefused
    assert "OUBLI_ALLOW_PICKLED_MODELS" in error.remedy
    monkeypatch.setenv("OUBLI_ALLOW_PICKLED_MODELS", "true")
    weights = ModelRegistry(Settings()).weights(version)
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {"1.weight": (3, 6), "1.bias": (3,)}


def test_factory_outside_the_allow_list(settings: Settings, convex: RegisteredVersion, removals: str) -> None:
    strict = settings.model_copy(update={"factory_prefixes": ("mycompany",)})
    error = _refused(strict, "convex", [removals])
    assert type(error) is FactoryNotAllowed
    assert "OUBLI_FACTORY_PREFIXES" in error.remedy


@pytest.mark.parametrize(
    "target", ["oubli.flows.unlearn:unlearn", "oubli.registry.training.imports:resolve", "subprocess:run"]
)
def test_our_own_package_is_not_allowed_as_a_whole(
    settings: Settings, convex: RegisteredVersion, data_uri: str, removals: str, target: str
) -> None:
    registry = ModelRegistry(settings)
    name = f"hostile-{target.rpartition(':')[2]}"
    version = train(settings, blobs.spec(name, data_uri))
    record = registry.training_record(version)
    hostile = record.factory.model_copy(update={"target": target})
    attach_record(registry, version, record.model_copy(update={"factory": hostile}))
    assert type(_refused(settings, f"{name}/1", [removals])) is FactoryNotAllowed


def test_factory_with_wrong_arguments(
    settings: Settings, convex: RegisteredVersion, data_uri: str, removals: str
) -> None:
    registry = ModelRegistry(settings)
    version = train(settings, blobs.spec("arguments", data_uri))
    record = registry.training_record(version)
    wrong = record.factory.model_copy(update={"kwargs": {"colour": "red"}})
    attach_record(registry, version, record.model_copy(update={"factory": wrong}))
    error = _refused(settings, "arguments/1", [removals])
    assert type(error) is TrainingRecordError
    assert "colour" in str(error)


def test_factory_that_does_not_fit_the_weights(
    settings: Settings, convex: RegisteredVersion, data_uri: str, removals: str
) -> None:
    registry = ModelRegistry(settings)
    version = train(settings, blobs.spec("misfit", data_uri))
    record = registry.training_record(version)
    wrong = record.factory.model_copy(update={"kwargs": {"features": blobs.FEATURES, "classes": 7}})
    attach_record(registry, version, record.model_copy(update={"factory": wrong}))
    error = _refused(settings, "misfit/1", [removals])
    assert type(error) is RegistryError
    assert "logistic_regression" in str(error)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"schema_version": 9}', b'{"schema_version": 1}'])
def test_training_record_damaged(
    settings: Settings, convex: RegisteredVersion, data_uri: str, removals: str, damage: bytes
) -> None:
    registry = ModelRegistry(settings)
    name = f"damaged-{len(damage)}"
    version = train(settings, blobs.spec(name, data_uri, seed=len(damage)))
    uri = version.tags["oubli.record"]
    good = store_for(uri).read(uri)
    store_for(uri).write(uri, damage)
    try:
        error = _refused(settings, f"{name}/1", [removals])
    finally:
        store_for(uri).write(uri, good)
    assert type(error) is DigestMismatch
    assert uri in str(error)
    assert registry.training_record(version).l2 == 1e-2


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_store_out_of_reach(settings: Settings, convex: RegisteredVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{_closed_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1") as caught:
        store_for("s3://bucket/x.csv").read("s3://bucket/x.csv")
    assert caught.value.remedy


@pytest.mark.s3
def test_wrong_s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    url = os.environ.get(S3_VARIABLE)
    if not url:
        pytest.skip(f"{S3_VARIABLE} is not set (for example s3://oubli-test/prefix, with AWS_* credentials)")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    uri = join(url, "removals", "x.csv")
    with pytest.raises(StoreAccessDenied) as caught:
        store_for(uri).read(uri)
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.remedy
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OUBLI_DEVICE", "tpu", ["OUBLI_DEVICE", "'tpu'"]),
        ("OUBLI_MEMORY_MIB", "lots", ["OUBLI_MEMORY_MIB", "'lots'"]),
    ],
)
def test_wrong_setting(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: list[str]) -> None:
    from oubli.registry.settings import load_settings

    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert all(word in str(caught.value) for word in words)


def test_nothing_was_registered_by_all_this(settings: Settings, convex: RegisteredVersion) -> None:
    assert _versions(settings, "convex") == 1
