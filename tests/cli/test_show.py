"""`oubli show` on a real registry: a model trained, unlearned from, and one registered by somebody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import blobs
import pytest
from typer.testing import CliRunner

from oubli.cli.main import app
from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.uris import join
from oubli.registry.training.writing import write_training_data


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], str]) -> Iterator[ModelRegistry]:
    """The model `blobs`: version 1 trained, version 2 unlearned; version 3 registered without Oubli."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUBLI_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", new_database(home))
        settings = Settings()
        uri = join(settings.store_root, "data", "blobs.parquet")
        write_training_data(blobs.table(), uri, subject_column="person")
        train(settings, blobs.spec("blobs", uri))
        removals = blobs.sample_removals(settings, "five.csv", range(1, 6))
        outcome = blobs.remove(settings, "blobs", [removals], UnlearnConfig(compare_with_retraining=True))
        assert outcome.status is Status.REGISTERED
        registry = ModelRegistry(settings)
        registry.client.create_model_version("blobs", str(home))
        yield registry


def show(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["show", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def imported(*arguments: str) -> tuple[str, set[str]]:
    """Runs the command in a process of its own: what it printed, and which packages it imported."""
    program = (
        "import sys\n"
        "from oubli.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120)
    text, _, modules = done.stdout.rstrip().rpartition("\n")
    return text + done.stderr, set(modules.split())


def row(text: str, name: str) -> list[str]:
    """The other cells of a row."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()]
    (found,) = [cells[1:] for cells in rows if cells[0] == name and len(cells) > 1]
    return found


def test_where_an_unlearned_version_comes_from(registry: ModelRegistry) -> None:
    text = show("blobs", "2")
    version = registry.version("blobs", "2")
    assert row(text, "Lineage") == ["2 (unlearned) from 1 (trained)"]
    assert row(text, "Aliases") == ["@challenger"]
    assert row(text, "MLflow run") == [version.run_id]
    assert row(text, "Request ids") == ["request-1, request-2, request-3, request-4, request-5"]
    assert row(text, "Removed") == ["5"]
    assert row(text, "Parent version") == ["1"]
    assert row(text, "Weights SHA-256") == [version.tags["oubli.weights_sha256"]]
    assert row(text, "Dataset SHA-256") == [registry.training_record(version).dataset.sha256]
    assert "does not prove that nothing of the samples is left" in text


def test_what_was_measured_on_it(registry: ModelRegistry) -> None:
    text = show("blobs", "2")
    metrics = registry.client.get_run(registry.version("blobs", "2").run_id).data.metrics
    suffixes = ("_parent", "", "_retrained")
    assert "Parent" in text
    assert "This version" in text
    assert "Retrained" in text
    for name, key in (("Forget loss", "forget_loss"), ("Retained loss", "retained_loss"), ("Test loss", "test_loss")):
        assert row(text, name) == [f"{metrics[key + suffix]:.4f}" for suffix in suffixes]
    assert row(text, "Test accuracy") == [f"{100 * metrics['test_accuracy' + suffix]:.2f} %" for suffix in suffixes]
    assert f"Distance to the retrained weights: {metrics['parameter_distance_to_retrained']:.2e}" in text


def test_a_trained_version_has_no_parent_and_no_column_for_one(registry: ModelRegistry) -> None:
    text = show("blobs", "1")
    assert row(text, "Lineage") == ["1 (trained)"]
    assert row(text, "Aliases") == ["@champion"]
    assert len(row(text, "Test loss")) == 1
    assert "Retrained" not in text
    assert "Distance" not in text


def test_a_version_that_somebody_else_registered(registry: ModelRegistry) -> None:
    text = show("blobs", "3")
    assert row(text, "Lineage") == ["3 (registered elsewhere)"]
    assert row(text, "Aliases") == ["none"]
    assert "nothing was measured" in text


def test_no_sample_is_named(registry: ModelRegistry) -> None:
    assert "sample-0" not in show("blobs", "2")


@pytest.mark.slow
def test_nothing_heavy_is_imported_to_show_a_version(registry: ModelRegistry) -> None:
    text, modules = imported("show", "blobs", "2")
    assert row(text, "Lineage") == ["2 (unlearned) from 1 (trained)"]
    assert modules & {"mlflow", "sqlalchemy", "pandas", "sklearn", "torch", "numpy", "prefect"} == set()


UNKNOWN = "sample_id\nsample-0001\nno-such-sample\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "rows", "message"),
    [
        (["unlearn", "--model"], UNKNOWN, "1 ids are not in the training data"),
        (["unlearn", "--model"], "sample_id\n", "is empty"),
        (["unlearn", "--model"], "sample_id,reason\n,moved\nsample-0001,\n", "1 rows have no id"),
        (["plan", "--model"], UNKNOWN, "1 ids are not in the training data"),
        (["train", "--from"], UNKNOWN, "1 ids are not in the training data"),
    ],
    ids=["unknown", "empty", "blank", "plan", "train"],
)
def test_nothing_heavy_is_imported_to_find_a_request_wrong(
    registry: ModelRegistry, tmp_path: Path, command: list[str], rows: str, message: str
) -> None:
    removals = tmp_path / "removals.csv"
    removals.write_text(rows)
    text, modules = imported(*command, "blobs", "--removals", str(removals))
    assert message in text
    assert modules & {"mlflow", "sqlalchemy", "sklearn", "torch", "prefect"} == set()


@pytest.mark.slow
def test_nothing_heavy_is_imported_to_find_that_there_is_no_such_model(registry: ModelRegistry) -> None:
    text, modules = imported("show", "bobs", "2")
    assert "No registered model is called 'bobs'" in text
    assert "has: blobs." in text
    assert modules & {"mlflow", "sqlalchemy", "torch", "numpy", "prefect"} == set()
