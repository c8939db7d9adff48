"""Child processes: a taken port is told at once, and nothing outlives the context."""

from __future__ import annotations

import os
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oubli.cli import services as module
from oubli.cli.services import Services
from oubli.components.errors import ConfigurationError
from oubli.registry.settings import Settings

# Stands in for `python -m prefect worker start`: a process that forks another, as a worker does for each run.
PARENT = """\
#!{python} -S
import os, signal, subprocess, sys, time
child = subprocess.Popen(
    [{python!r}, "-S", "-c", "import signal, time; {child}; print('ready', flush=True); time.sleep(300)"],
    stdout=subprocess.PIPE,
)
child.stdout.readline()
{parent}
with open({pids!r} + ".part", "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
os.rename({pids!r} + ".part", {pids!r})
time.sleep(300)
"""
OBEYS = "pass"
IGNORES = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return Settings(home=tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((module.HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((module.HOST, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("which", ["MLflow", "Prefect"])
def test_a_taken_port_is_told_before_anything_starts(settings: Settings, taken: int, which: str) -> None:
    ports = {"mlflow_port": _free_port(), "prefect_port": _free_port(), f"{which.lower()}_port": taken}
    with (
        Services(settings, **ports) as services,
        pytest.raises(ConfigurationError, match=rf"Port {taken} for {which} is taken") as caught,
    ):
        services.start_pages()
    assert f"--{which.lower()}-port" in caught.value.remedy
    assert not (settings.home / "logs").exists()


def _script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, parent: str, child: str) -> Path:
    """Puts the stand-in where Services looks for Python; the file that its process ids come to."""
    script, pids = tmp_path / "python", tmp_path / "pids"
    script.write_text(PARENT.format(python=sys.executable, parent=parent, child=child, pids=str(pids)))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return pids


@pytest.mark.parametrize("parent", [OBEYS, IGNORES], ids=["parent obeys", "parent ignores"])
@pytest.mark.parametrize("child", [OBEYS, IGNORES], ids=["child obeys", "child ignores"])
def test_children_and_their_children_are_gone_afterwards(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: str, child: str
) -> None:
    monkeypatch.setattr(module, "_STOP_SECONDS", 0.3)
    file = _script(tmp_path, monkeypatch, parent=parent, child=child)
    with Services(settings, mlflow_port=1, prefect_port=2) as services:
        services.start_worker()
        _until(file.exists)
        pids = [int(pid) for pid in file.read_text().split()]
        assert [_alive(pid) for pid in pids] == [True, True]
        # Not in our group: Ctrl-C on the terminal must reach us alone, who stop them in order.
        assert os.getpgid(pids[0]) == os.getpgid(pids[1]) != os.getpgid(0)
    _until(lambda: not any(_alive(pid) for pid in pids), seconds=5)


def test_children_are_gone_after_an_error_too(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _script(tmp_path, monkeypatch, parent=OBEYS, child=OBEYS)

    def fail() -> None:
        with Services(settings, mlflow_port=1, prefect_port=2) as services:
            services.start_worker()
            _until(file.exists)
            raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        fail()
    pids = [int(pid) for pid in file.read_text().split()]
    _until(lambda: not any(_alive(pid) for pid in pids), seconds=5)


def test_a_service_that_ends_by_itself_is_an_error(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(
        textwrap.dedent(f"""\
        #!{sys.executable} -S
        print("no database")
        raise SystemExit(7)
        """)
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with Services(settings, mlflow_port=1, prefect_port=2) as services:
        services.start_worker()
        with pytest.raises(ConfigurationError, match="worker ended with status 7") as caught:
            services.wait()
    log = settings.home / "logs" / "worker.log"
    assert str(log) in caught.value.remedy
    assert log.read_text() == "no database\n"


def test_what_the_services_see(settings: Settings) -> None:
    services = Services(settings, mlflow_port=5001, prefect_port=4201)
    assert (services.mlflow_url, services.prefect_url) == ("http://127.0.0.1:5001", "http://127.0.0.1:4201")
    seen = services.environment
    assert seen["PREFECT_API_URL"] == "http://127.0.0.1:4201/api"
    assert seen["MLFLOW_TRACKING_URI"] == settings.tracking_uri
    assert (seen["OUBLI_HOME"], seen["OUBLI_STORE"]) == (str(settings.home), settings.store_root)
    assert seen["PATH"] == os.environ["PATH"]


def test_paths_are_absolute_for_workers_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = Services(Settings(home=Path("here")), mlflow_port=1, prefect_port=2).environment
    assert seen["OUBLI_HOME"] == str(tmp_path / "here")
    assert seen["OUBLI_STORE"] == (tmp_path / "here" / "store").as_uri()
