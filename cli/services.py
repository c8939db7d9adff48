"""The local services: MLflow's server, Prefect's server, and a Prefect process worker, as child processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from oubli import infra
from oubli.components.errors import ConfigurationError
from oubli.registry.settings import Settings

DEPLOYMENTS = Path(infra.__file__).with_name("prefect.yaml")
HOST = "127.0.0.1"
POOL = "oubli"
_START_SECONDS = 120
_STOP_SECONDS = 10


class Services:
    """Starts the services and stops them, children included, when the context ends.

    Logs go to `HOME/logs`. Raises ConfigurationError where a port is taken or a service does not come up.
    """

    def __init__(self, settings: Settings, *, mlflow_port: int, prefect_port: int) -> None:
        self.settings = settings
        self.mlflow_url = f"http://{HOST}:{mlflow_port}"
        self.prefect_url = f"http://{HOST}:{prefect_port}"
        self._ports = {"MLflow": mlflow_port, "Prefect": prefect_port}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children.values()):
            _signal_group(child, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for child in self._children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))
            # Always: what a service forked may outlive it. A removal that this cuts short resumes at its stage.
            _signal_group(child, signal.SIGKILL)
            child.wait()

    def start_pages(self) -> None:
        if len(set(self._ports.values())) < len(self._ports):
            raise ConfigurationError("MLflow and Prefect cannot share a port.", remedy="Choose two different ports.")
        for name, port in self._ports.items():
            _require_free(name, port)
        self._start(
            "mlflow", "-m", "mlflow", "server", "--backend-store-uri", self.settings.tracking_uri,
            "--host", HOST, "--port", str(self._ports["MLflow"]), "--workers", "1",
        )  # fmt: skip
        self._start(
            "prefect", "-m", "prefect", "server", "start", "--host", HOST, "--port", str(self._ports["Prefect"])
        )
        self._wait_for("mlflow", f"{self.mlflow_url}/health")
        self._wait_for("prefect", f"{self.prefect_url}/api/health")

    def deploy(self) -> None:
        """Create the work pool and apply infra/prefect.yaml."""
        self._prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
        self._prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS))

    def start_worker(self) -> None:
        self._start("worker", "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process")

    def wait(self) -> None:
        """Until Ctrl-C, or until a service ends by itself, which is an error."""
        try:
            while True:
                for name, child in self._children.items():
                    if child.poll() is not None:
                        raise self._ended(name)
                time.sleep(0.5)
        except KeyboardInterrupt:
            return

    @property
    def environment(self) -> dict[str, str]:
        """What the services and the flows they run see."""
        return {
            "PREFECT_HOME": str((self.settings.home / "prefect").resolve()),
            **os.environ,
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            "MLFLOW_TRACKING_URI": self.settings.tracking_uri,
            # Its job runners serve features that nothing here uses, with a process each.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # Absolute, because a worker runs each flow in a folder of its own.
            "OUBLI_HOME": str(self.settings.home.resolve()),
            "OUBLI_STORE": self.settings.store_root,
        }

    def _start(self, name: str, *arguments: str) -> None:
        with self._log(name).open("ab") as log:
            # A process group of its own, so that stopping it reaches the children it forks.
            self._children[name] = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=self.environment, start_new_session=True,
            )  # fmt: skip

    def _prefect(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments], env=self.environment, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise ConfigurationError(
                f"prefect {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()[-2000:]}",
                remedy="Correct infra/prefect.yaml, or start again.",
            )

    def _wait_for(self, name: str, url: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._children[name].poll() is not None:
                raise self._ended(name)
            try:
                with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own loopback address
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)
        raise ConfigurationError(
            f"{name} did not answer at {url} within {_START_SECONDS} s.", remedy=f"Read {self._log(name)}."
        )

    def _ended(self, name: str) -> ConfigurationError:
        code = self._children[name].returncode
        return ConfigurationError(f"{name} ended with status {code}.", remedy=f"Read {self._log(name)}.")

    def _log(self, name: str) -> Path:
        folder = self.settings.home / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.log"


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return


def _require_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        # As the servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} for {name} is taken on {HOST} ({error.strerror}).",
                remedy="Stop what uses it, or choose another with --mlflow-port or --prefect-port.",
            ) from error
