"""Settings: what the environment says, what stands in for it, and what is never shown or overridden."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import ModelNotFound, RegistryError
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.settings import QUIET, Settings, load_settings, prepare_environment

PASSWORD = "hunter2"


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The environment without any variable of ours; as it was, afterwards."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("OUBLI_", "PREFECT_", "MLFLOW_"))]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


def test_defaults_need_no_server() -> None:
    settings = load_settings()
    assert settings.home == Path(".oubli")
    assert settings.store_root == (Path.cwd() / ".oubli" / "store").as_uri()
    assert settings.tracking_uri == f"sqlite:///{Path.cwd() / '.oubli' / 'mlflow.db'}"
    assert settings.embedded_tracking
    assert settings.factory_prefixes == ("oubli.components.reference",)
    assert not settings.allow_pickled_models
    assert settings.memory_bytes == 2**30


def test_each_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HOME": "/srv/oubli",
        "STORE": "s3://bucket/prefix/",
        "FACTORY_PREFIXES": "oubli",
        "ALLOW_PICKLED_MODELS": "true",
        "DEVICE": "cpu",
        "MEMORY_MIB": "64",
    }.items():
        monkeypatch.setenv(f"OUBLI_{name}", value)
    monkeypatch.setenv("OUBLI_OF_ANOTHER_VERSION", "ignored")
    settings = load_settings()
    assert settings.home == Path("/srv/oubli")
    assert settings.store_root == "s3://bucket/prefix"
    assert settings.allow_pickled_models
    assert settings.torch_device() == "cpu"
    assert settings.memory_bytes == 64 * 2**20


@pytest.mark.parametrize(
    ("text", "prefixes"),
    [
        ("oubli", ("oubli",)),
        ("oubli,mycompany.models", ("oubli", "mycompany.models")),
        (" oubli , mycompany ,", ("oubli", "mycompany")),
        ("", ()),
        (",", ()),
    ],
)
def test_prefixes_are_a_comma_list(monkeypatch: pytest.MonkeyPatch, text: str, prefixes: tuple[str, ...]) -> None:
    monkeypatch.setenv("OUBLI_FACTORY_PREFIXES", text)
    assert load_settings().factory_prefixes == prefixes


@pytest.mark.parametrize(
    ("store", "root"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/prefix//", "s3://bucket/prefix"),
        ("file:///data/store/", "file:///data/store"),
        ("/data/store", "file:///data/store"),
        ("a store", f"{Path.cwd().as_uri()}/a%20store"),
    ],
)
def test_store_root_has_no_trailing_slash(monkeypatch: pytest.MonkeyPatch, store: str, root: str) -> None:
    monkeypatch.setenv("OUBLI_STORE", store)
    assert load_settings().store_root == root


def test_the_local_store_is_an_absolute_uri(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUBLI_HOME", "a home #1")
    settings = load_settings()
    assert settings.store_root == (tmp_path / "a home #1" / "store").as_uri()
    monkeypatch.chdir("/")
    assert settings.store_root == (tmp_path / "a home #1" / "store").as_uri()


def test_somebodys_mlflow_server_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    settings = load_settings()
    assert settings.tracking_uri == "https://mlflow.example"
    assert not settings.embedded_tracking


@pytest.mark.parametrize(
    ("name", "value"),
    [("DEVICE", "tpu"), ("MEMORY_MIB", "lots"), ("MEMORY_MIB", "0"), ("ALLOW_PICKLED_MODELS", "perhaps")],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"OUBLI_{name}", value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert f"OUBLI_{name}={value!r}" in caught.value.problem
    assert f"OUBLI_{name}" in caught.value.remedy


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().home = Path("elsewhere")  # type: ignore[misc]


def test_what_we_start_is_quiet(tmp_path: Path) -> None:
    prepare_environment(Settings(home=tmp_path / "home"))
    assert {name: os.environ[name] for name in QUIET} == QUIET
    assert QUIET["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert QUIET["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "home" / "prefect")
    assert (tmp_path / "home").is_dir()
    assert "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL" not in os.environ


def test_the_terminal_shows_only_what_was_asked_for(tmp_path: Path) -> None:
    prepare_environment(Settings(home=tmp_path), console_logs=False)
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "CRITICAL"


def test_a_set_variable_is_never_overridden(tmp_path: Path) -> None:
    prepare_environment(Settings(home=tmp_path), console_logs=False)
    set_here = {name: value for name, value in os.environ.items() if name.startswith(("PREFECT_", "MLFLOW_", "DO_"))}
    mine = dict.fromkeys(set_here, "mine")
    os.environ.update(mine)
    prepare_environment(Settings(home=tmp_path), console_logs=False)
    assert len(mine) >= 7
    assert {name: os.environ[name] for name in mine} == mine


@pytest.mark.parametrize("writable", [True, False])
def test_kernels_are_kept_in_the_home_of_a_read_only_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    os.environ.pop("NUMBA_CACHE_DIR", None)
    # Whoever runs the test may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: writable or not Path(path).match("lfoci/engines"))
    prepare_environment(Settings(home=tmp_path / "home"))
    assert os.environ.get("NUMBA_CACHE_DIR") == (None if writable else str(tmp_path / "home" / "kernels"))


@pytest.mark.slow
def test_the_databases_password_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A file whose name is written as user, password and host are in a server's URI.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/oubli:{PASSWORD}@mlflow.db")
    with pytest.raises(ModelNotFound, match=r"'nobody'; MLflow at sqlite://mlflow\.db has: none at all") as caught:
        ModelRegistry(load_settings()).head("nobody")
    assert PASSWORD not in str(caught.value)


def test_the_servers_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    # Port 1 of this machine: nothing answers there.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://oubli:{PASSWORD}@127.0.0.1:1")
    with pytest.raises(RegistryError, match=r"MLflow at http://127\.0\.0\.1:1 failed") as caught:
        ModelRegistry(load_settings()).head("nobody")
    assert type(caught.value) is RegistryError
    assert PASSWORD not in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in caught.value.remedy
