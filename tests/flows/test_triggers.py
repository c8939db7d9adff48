"""The deployments, run by a live Prefect server and worker: by hand, and as the schedule would."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import blobs
import pytest

from oubli.cli.services import Services
from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join
from oubli.registry.training.writing import write_training_data

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def services(settings: Settings) -> Iterator[Services]:
    with Services(settings, mlflow_port=_free_port(), prefect_port=_free_port()) as running:
        running.start_pages()
        running.deploy()
        running.start_worker()
        yield running


def _prefect(services: Services, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=services.environment | {"NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _run(services: Services, deployment: str, **parameters: object) -> str:
    """Run a deployment to its end; what the command printed."""
    given = [part for name, value in parameters.items() for part in ("--param", f"{name}={json.dumps(value)}")]
    return _prefect(services, "deployment", "run", deployment, *given, "--watch")


def _versions(registry: ModelRegistry, name: str) -> int:
    return len(registry.client.search_model_versions(f"name = '{name}'"))


def _names(settings: Settings, *prefix: str) -> list[str]:
    folder = join(settings.store_root, *prefix)
    return sorted(entry.uri.rpartition("/")[2] for entry in store_for(folder).list(folder))


def test_parameter_form_explains_each_field(services: Services) -> None:
    schema = json.loads(_prefect(services, "deployment", "inspect", "unlearn/unlearn", "--output", "json"))[
        "parameter_openapi_schema"
    ]
    assert schema["required"] == ["model", "removals"]
    assert all(field.get("description") for field in schema["properties"].values())
    config = schema["definitions"]["UnlearnConfig"]["properties"]
    assert "damping" in config
    assert all(field.get("description") for field in config.values())


def test_compliance_is_scheduled_daily(services: Services) -> None:
    found = json.loads(_prefect(services, "deployment", "inspect", "compliance/compliance", "--output", "json"))
    assert [entry["schedule"]["cron"] for entry in found["schedules"]] == ["0 3 * * *"]


def test_removal_triggered_by_hand(settings: Settings, services: Services, data_uri: str) -> None:
    train(settings, blobs.spec("by-hand", data_uri))
    removals = blobs.sample_removals(settings, "by-hand.csv", range(1, 4))
    _run(services, "unlearn/unlearn", model="by-hand", removals=[removals], config={"alias": "candidate"})
    version = ModelRegistry(settings).by_alias("by-hand", "candidate")
    assert (version.version, version.tags["oubli.parent_version"]) == ("2", "1")


def test_compliance_takes_the_inbox_once(settings: Settings, services: Services, data_uri: str) -> None:
    registry = ModelRegistry(settings)
    for name in ("first", "second"):
        train(settings, blobs.spec(name, data_uri))
    blobs.sample_removals(settings, "monday.csv", range(1, 4), prefix="inbox/first")
    blobs.sample_removals(settings, "tuesday.csv", range(7, 10), prefix="inbox/first")
    blobs.write_removals(settings, "typo.csv", "sample_id\nno-such-sample\n", prefix="inbox/first")
    blobs.sample_removals(settings, "monday.csv", range(1, 4), prefix="inbox/second")
    _run(services, "compliance/compliance")

    # One version a model, with all of its files.
    assert {name: _versions(registry, name) for name in ("first", "second")} == {"first": 2, "second": 2}
    params = registry.client.get_run(registry.version("first", "2").run_id).data.params
    assert (params["removed"], params["parent_version"]) == ("6", "1")
    assert _names(settings, "inbox") == []
    assert _names(settings, "processed", "first") == ["monday.csv", "outcome.json", "tuesday.csv"]
    assert _names(settings, "processed", "second") == ["monday.csv", "outcome.json"]
    # The bad file did not hold up the others, and its reason stands beside it.
    assert _names(settings, "rejected", "first") == ["typo.csv", "typo.csv.error.txt"]

    # The next day: nothing new, then one more file on top of the unpromoted version 2.
    _run(services, "compliance/compliance")
    assert {name: _versions(registry, name) for name in ("first", "second")} == {"first": 2, "second": 2}
    blobs.sample_removals(settings, "wednesday.csv", range(13, 16), prefix="inbox/first")
    _run(services, "compliance/compliance")
    params = registry.client.get_run(registry.version("first", "3").run_id).data.params
    assert (params["removed"], params["removed_in_all"], params["parent_version"]) == ("3", "9", "2")


def test_refusal_has_a_name_that_automations_can_watch(settings: Settings, services: Services, data_uri: str) -> None:
    train(settings, blobs.spec("refusing", data_uri))
    labels = blobs.table().column("label").to_pylist()
    rows = [f"sample-{number:04d}" for number, label in enumerate(labels) if label == 0 and number % blobs.TEST_EVERY]
    blobs.write_removals(settings, "class-0.csv", "\n".join(["sample_id", *rows]), prefix="inbox/refusing")
    # One step with a large damping does next to nothing.
    _run(services, "compliance/compliance", models=["refusing"], config={"steps": 1, "damping": 1e3})
    states = _prefect(services, "flow-run", "ls", "--state", "Refused", "--output", "json")
    assert [run["state_name"] for run in json.loads(states)] == ["Refused"]
    assert _names(settings, "processed", "refusing") == ["class-0.csv", "outcome.json"]
    assert _versions(ModelRegistry(settings), "refusing") == 1


def test_one_models_trouble_does_not_hold_up_another(settings: Settings, services: Services, data_uri: str) -> None:
    registry = ModelRegistry(settings)
    train(settings, blobs.spec("healthy", data_uri))
    # Data that is not as recorded is the model's trouble, not the file's: the file must wait.
    altered = join(settings.store_root, "data", "altered.parquet")
    write_training_data(blobs.table(), altered, subject_column="person")
    train(settings, blobs.spec("ailing", altered))
    write_training_data(blobs.table().slice(0, 120), altered, subject_column="person")
    blobs.sample_removals(settings, "a.csv", range(1, 4), prefix="inbox/ailing")
    blobs.sample_removals(settings, "a.csv", range(1, 4), prefix="inbox/absent")
    blobs.sample_removals(settings, "a.csv", range(1, 4), prefix="inbox/healthy")
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "run", "compliance/compliance", "--watch"],
        env=services.environment | {"NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0, "a model that does not exist must fail the run"
    assert _versions(registry, "healthy") == 2
    assert _names(settings, "inbox", "absent") == ["a.csv"]
    assert _names(settings, "inbox", "ailing") == ["a.csv"]
    assert _names(settings, "inbox", "healthy") == []
