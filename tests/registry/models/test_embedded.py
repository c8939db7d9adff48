"""Look-ups in MLflow's database file answer what MLflow answers."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from oubli.registry.models.embedded import EmbeddedRegistry
from oubli.registry.models.model_registry import as_registered
from oubli.registry.models.registered import RegisteredVersion
from oubli.registry.settings import Settings

METRICS = {"loss": 0.25, "nothing": math.nan, "endless": math.inf, "endless_below": -math.inf}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], str]) -> str:
    """Two models: `a` with versions 1 to 3, of which 2 was deleted, with aliases, tags and a run; `b` without any."""
    folder = tmp_path_factory.mktemp("embedded")
    uri = new_database(folder)
    client = MlflowClient(uri)
    run = client.create_run("0").info.run_id
    client.log_param(run, "method", "newton")
    for name, value in METRICS.items():
        client.log_metric(run, name, value)
    client.log_metric(run, "loss", 0.125)
    client.create_registered_model("a")
    client.create_registered_model("b")
    client.create_model_version("a", str(folder), run_id=run, tags={"one": "1", "two": ""}, description="Made of `x`.")
    client.create_model_version("a", str(folder))
    client.create_model_version("a", str(folder), tags={"three": "3"})
    client.delete_model_version("a", "2")
    client.set_registered_model_alias("a", "champion", "1")
    client.set_registered_model_alias("a", "best", "1")
    client.set_registered_model_alias("a", "challenger", "3")
    return uri


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(uri)


@pytest.fixture
def embedded(uri: str, monkeypatch: pytest.MonkeyPatch) -> EmbeddedRegistry:
    return of(uri, monkeypatch)


def of(uri: str, patch: pytest.MonkeyPatch) -> EmbeddedRegistry:
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    return EmbeddedRegistry.of(Settings())


def version(embedded: EmbeddedRegistry, number: str) -> RegisteredVersion:
    found = embedded.version("a", number)
    assert found is not None
    return found


def test_the_models_that_there_are(embedded: EmbeddedRegistry, client: MlflowClient) -> None:
    client.register_prompt("prompt", "Say {{word}}.")
    assert embedded.names() == sorted(model.name for model in client.search_registered_models()) == ["a", "b"]


@pytest.mark.parametrize("number", ["1", "3"])
def test_a_version(embedded: EmbeddedRegistry, client: MlflowClient, number: str) -> None:
    assert embedded.version("a", number) == as_registered(client.get_model_version("a", number))


@pytest.mark.parametrize("number", ["2", "4", "one", "1 OR 1=1"])
def test_a_version_that_is_not_there(embedded: EmbeddedRegistry, number: str) -> None:
    assert embedded.version("a", number) is None


def test_the_version_of_an_alias(embedded: EmbeddedRegistry, client: MlflowClient) -> None:
    for alias in ("champion", "best", "challenger"):
        assert embedded.by_alias("a", alias) == as_registered(client.get_model_version_by_alias("a", alias))
    assert embedded.by_alias("a", "none") is None


def test_all_versions(embedded: EmbeddedRegistry, client: MlflowClient) -> None:
    listed = [as_registered(each) for each in client.search_model_versions("name = 'a'")]
    assert embedded.versions("a") == listed
    assert [each.version for each in listed] == ["3", "1"]
    assert embedded.versions("b") is None


def test_aliases(embedded: EmbeddedRegistry, client: MlflowClient) -> None:
    assert embedded.aliases(version(embedded, "1")) == sorted(client.get_model_version("a", "1").aliases)
    assert embedded.aliases(version(embedded, "1")) == ["best", "champion"]
    assert embedded.aliases(version(embedded, "3")) == ["challenger"]


def test_a_run(embedded: EmbeddedRegistry, client: MlflowClient) -> None:
    run_id = version(embedded, "1").run_id
    assert run_id is not None
    known, data = embedded.run(run_id), client.get_run(run_id).data
    assert known is not None
    assert known.params == data.params == {"method": "newton"}
    assert known.metrics == pytest.approx(data.metrics, abs=0, nan_ok=True)
    assert known.metrics["loss"] == 0.125
    assert math.isnan(known.metrics["nothing"])
    assert embedded.run("no such run") is None


@pytest.mark.parametrize("variable", ["MLFLOW_REGISTRY_URI", "MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE"])
def test_where_mlflow_looks_elsewhere_nothing_is_answered(
    uri: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "sqlite:///elsewhere.db")
    assert of(uri, monkeypatch).version("a", "1") is None


@pytest.mark.parametrize("uri", ["http://localhost:5000", "sqlite:////no/such/mlflow.db"])
def test_what_is_no_file_answers_nothing(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    embedded = of(uri, monkeypatch)
    assert embedded.version("a", "1") is None
    assert embedded.run("1") is None


def test_tables_of_another_schema_answer_nothing(
    tmp_path: Path, new_database: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_database(tmp_path)
    MlflowClient(uri).create_registered_model("a")
    MlflowClient(uri).create_model_version("a", str(tmp_path))
    assert of(uri, monkeypatch).version("a", "1") == RegisteredVersion("a", "1", None, {}, "")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        connection.commit()
    assert of(uri, monkeypatch).version("a", "1") is None


def test_the_file_is_left_as_it_was(uri: str, embedded: EmbeddedRegistry) -> None:
    path = Path(uri.removeprefix("sqlite:///"))
    before = path.read_bytes()
    version(embedded, "1")
    assert path.read_bytes() == before
    assert sorted(each.name for each in path.parent.iterdir()) == ["mlflow.db"]
