"""Workers that die: the next run resumes at the stage that was reached, and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import blobs
import pytest
from mlflow.entities import LoggedModelStatus

from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join
from oubli.registry.training.writing import write_training_data

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

OUBLI = str(Path(sys.executable).parent / "oubli")
SUPPORT = Path(blobs.__file__).parent
_DEADLINE_S = 180


@pytest.fixture(scope="module", autouse=True)
def _slow_loss_is_allowed(settings: Settings) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUBLI_FACTORY_PREFIXES", "oubli.components.reference,slow_loss")
        yield


@pytest.fixture
def removals(settings: Settings) -> str:
    return blobs.sample_removals(settings, "ten.csv", range(1, 13))


def _train(settings: Settings, name: str, data_uri: str) -> None:
    train(Settings(), blobs.spec(name, data_uri, loss="slow_loss:cross_entropy"))


def _start(arguments: list[str], *, slow_s: float = 0.0) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "OUBLI_TEST_SLOW_S": str(slow_s)}
    return subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _kill_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert process.poll() is None, f"ended before it was killed: {process.communicate()}"
        assert time.monotonic() < deadline, "never reached the point to be killed at"
        time.sleep(0.01)
    # The whole group: the embedded Prefect server dies with its flow.
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _stages(settings: Settings) -> set[str]:
    """Stages that any outcome has finished."""
    prefix = join(settings.store_root, "work")
    uris = [entry.uri for entry in store_for(prefix).list(prefix)]
    return {uri.split("/")[-2] for uri in uris if uri.endswith("/manifest.json")}


def _digest(settings: Settings, name: str, version: str) -> str:
    return ModelRegistry(settings).version(name, version).tags["oubli.weights_sha256"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], str]) -> str:
    """Weights digest of the same removal, never interrupted, in a workspace of its own."""
    home = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUBLI_HOME", str(home))
        patch.setenv("OUBLI_STORE", "")
        patch.setenv("MLFLOW_TRACKING_URI", new_database(home))
        settings = Settings()
        uri = join(settings.store_root, "data", "blobs.parquet")
        write_training_data(blobs.table(), uri, subject_column="person")
        _train(settings, "killed", uri)
        blobs.remove(settings, "killed", [blobs.sample_removals(settings, "ten.csv", range(1, 13))])
        return _digest(settings, "killed", "2")


def test_killed_during_the_update(settings: Settings, data_uri: str, removals: str, undisturbed: str) -> None:
    _train(settings, "killed", data_uri)
    command = [OUBLI, "unlearn", "--model", "killed", "--removals", removals]
    worker = _start(command, slow_s=1.0)
    started = time.monotonic()
    _kill_when(worker, lambda: "blanket" in _stages(settings) and time.monotonic() > started + 0.5)
    assert _stages(settings) == {"fetch", "gradients", "blanket"}
    manifests = _manifests(settings)

    again = _start(command)
    output, errors = again.communicate(timeout=_DEADLINE_S)
    assert again.returncode == 0, errors
    assert "killed: version 2 registered" in output
    assert "Traceback" not in errors
    # What the killed run had finished was not computed anew.
    assert manifests.items() <= _manifests(settings).items()
    registry = ModelRegistry(settings)
    assert len(registry.client.search_model_versions("name = 'killed'")) == 2
    assert _digest(settings, "killed", "2") == undisturbed


def _manifests(settings: Settings) -> dict[str, bytes]:
    """Every manifest's bytes; they hold the seconds a stage took, so computing a stage again would change them."""
    prefix = join(settings.store_root, "work")
    store = store_for(prefix)
    return {entry.uri: store.read(entry.uri) for entry in store.list(prefix) if entry.uri.endswith("manifest.json")}


def test_killed_while_registering(settings: Settings, data_uri: str, removals: str, undisturbed: str) -> None:
    _train(settings, "swept", data_uri)
    registry = ModelRegistry(settings)
    experiment = registry.client.get_experiment_by_name("swept").experiment_id
    script = (
        "import sys, blobs; from oubli.registry.settings import Settings; "
        "blobs.remove(Settings(), 'swept', sys.argv[1:])"
    )
    worker = _start([sys.executable, "-c", script, removals])
    _kill_when(worker, lambda: bool(_models(registry, experiment, LoggedModelStatus.PENDING)))
    assert _runs(registry, experiment, "RUNNING") == 1

    outcome = blobs.remove(Settings(), "swept", [removals])
    assert outcome.version == "2"
    assert _digest(settings, "swept", "2") == undisturbed
    # What the dead worker left open is closed.
    assert (_runs(registry, experiment, "RUNNING"), _runs(registry, experiment, "KILLED")) == (0, 1)
    assert not _models(registry, experiment, LoggedModelStatus.PENDING)
    assert len(_models(registry, experiment, LoggedModelStatus.FAILED)) == 1


def _runs(registry: ModelRegistry, experiment: str, status: str) -> int:
    return len(registry.client.search_runs([experiment], f"attributes.status = '{status}'"))


def _models(registry: ModelRegistry, experiment: str, status: LoggedModelStatus) -> list[object]:
    return [model for model in registry.client.search_logged_models([experiment]) if model.status == status]
