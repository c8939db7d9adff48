"""What all tests share: quiet services, one thread a process, databases made ahead, and the order they start in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oubli.registry.settings import QUIET

# Before anything imports Prefect or MLflow, which read these once.
os.environ.update(QUIET)
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "OUBLI_STORE", "OUBLI_HOME", "OUBLI_FACTORY_PREFIXES"):
    # The developer's own servers and stores are none of the tests' business.
    os.environ.pop(name, None)

# Test processes beside each other would fight for the cores if torch and BLAS took all of them in each. What must not
# depend on threads is tested with numbers of threads of its own.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

SLOW_S = 2.0  # what takes longer on an idle machine is marked `slow`
HINT_S = 3 * SLOW_S  # machines are rarely idle


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Makes an MLflow database in a folder, which need not exist; returns its tracking URI.

    Every one is a copy: creating the tables takes MLflow seconds.
    """
    template = tmp_path_factory.mktemp("mlflow") / "mlflow.db"

    def make(folder: Path) -> str:
        from mlflow import MlflowClient

        if not template.exists():
            MlflowClient(f"sqlite:///{template}").search_experiments()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(template, folder / "mlflow.db")
        return f"sqlite:///{folder / 'mlflow.db'}"

    return make


def _cost(item: pytest.Item) -> int:
    if item.get_closest_marker("e2e"):
        return 10
    return 1 if item.get_closest_marker("slow") else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that take long come first where files are shared out, so that no process is left alone with one."""
    if not hasattr(config, "workerinput"):
        return
    costs: dict[Path, int] = {}
    for item in items:
        costs[item.path] = costs.get(item.path, 0) + _cost(item)
    items.sort(key=lambda item: -costs[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Name what took long and is marked neither slow nor e2e. A hint: no test fails for its time."""
    yield
    unmarked = sorted(
        (
            (report.duration, report.nodeid)
            for reports in terminalreporter.stats.values()
            for report in reports
            if isinstance(report, pytest.TestReport)
            and report.when == "call"
            and report.duration > HINT_S
            and not {"slow", "e2e"} & set(report.keywords)
        ),
        reverse=True,
    )
    if unmarked:
        terminalreporter.section(f"over {HINT_S:g} s here, and not marked slow (over {SLOW_S:g} s on an idle machine)")
        for seconds, nodeid in unmarked:
            terminalreporter.line(f"{seconds:6.1f} s  {nodeid}")
