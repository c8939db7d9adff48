"""The command line: quick help, and one exit status for each way to end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from typer.testing import CliRunner

from oubli.cli.main import app, main
from oubli.cli.unlearn import unlearn
from oubli.components.blocks.choosing import BlockChoice
from oubli.components.gate.limits import GateLimits
from oubli.flows.training.retrain import Retrained
from oubli.registry.errors import UnknownIdsError
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.removal_set import UnknownIds
from oubli.registry.removals.unlearn_config import UnlearnConfig

COMMANDS = ("demo", "train", "plan", "unlearn", "show", "serve", "select")
HEAVY = {"torch", "mlflow", "prefect", "numpy", "pyarrow", "boto3", "scipy", "sklearn", "pandas"}

# Runs the command as the installed script does, and says at the end which modules were imported.
PROGRAM = """
import json, sys
from oubli.cli.main import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("OUBLI_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return home


def _process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=os.environ, capture_output=True, text=True, timeout=120
    )


def _invoke(*arguments: str) -> tuple[int, str]:
    """Exit status, and all that was printed."""
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("arguments", [["--help"], ["unlearn", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = _process(*arguments)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    imported = set(json.loads(done.stderr.splitlines()[-1]))
    assert "oubli.cli.unlearn" in imported
    assert imported & HEAVY == set()


def test_help_names_every_command() -> None:
    status, text = _invoke("--help")
    assert status == 0
    for command in COMMANDS:
        assert command in text
    assert {command.callback.__name__ for command in app.registered_commands} == set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("demo", ["handwritten digits"]),
        ("train", ["--from", "--removals"]),
        ("unlearn", ["--model", "--removals", "--selection", "--config", "--compare", "Exit status 3"]),
        ("show", ["name", "version"]),
        ("serve", ["--worker", "--mlflow-port", "--prefect-port"]),
    ],
)
def test_each_commands_help(command: str, words: list[str]) -> None:
    status, text = _invoke(command, "--help")
    assert status == 0
    assert [word for word in words if word not in text] == []


def test_help_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "oubli"), "show", "--help"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == []


def test_selections_are_those_of_the_configuration() -> None:
    # Written twice, so that help needs no heavy import.
    choices = get_args(get_type_hints(unlearn)["selection"])
    assert set(choices) == {selection.value for selection in BlockChoice} | {"auto"}


def test_help_names_every_limit_of_the_gate() -> None:
    # Written twice, so that help needs no heavy import.
    _status, text = _invoke("unlearn", "--help")
    words = set(re.findall(r"\w+", text))
    assert {field.name for field in fields(GateLimits)} <= words


def test_the_version_is_quick_to_ask_for(home: Path) -> None:
    done = _process("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"oubli {version('oubli')}")
    assert set(json.loads(done.stderr.splitlines()[-1])) & HEAVY == set()
    assert not home.exists()
    assert "--version" in _invoke("--help")[1]


def test_an_error_is_one_message_with_a_remedy() -> None:
    os.environ["OUBLI_DEVICE"] = "tpu"
    done = _process("show", "digits", "1")
    assert done.returncode == 1
    message, _, _modules = done.stderr.rstrip().rpartition("\n")
    lines = message.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Error: OUBLI_DEVICE='tpu'")
    assert lines[1].startswith("What to do: Correct or unset OUBLI_DEVICE")
    assert "Traceback" not in done.stdout + done.stderr


def test_debug_shows_where_an_error_came_from() -> None:
    os.environ["OUBLI_DEVICE"] = "tpu"
    done = _process("--debug", "show", "digits", "1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "oubli.components.errors.ConfigurationError: OUBLI_DEVICE='tpu'" in done.stderr


@pytest.mark.slow
def test_an_unknown_model(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    new_database: Callable[[Path], str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_database(tmp_path))
    monkeypatch.setattr(sys, "argv", ["oubli", "show", "nobody", "1"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    shown = capsys.readouterr()
    assert "No registered model is called 'nobody'" in shown.err
    assert "What to do:" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["unlearn", "--model", "digits"], "--removals"),
        (["unlearn", "--removals", "a.csv"], "--model"),
        (["unlearn", "--model", "digits", "--removals", "a.csv", "--selection", "best"], "'l_foci'"),
        (["unlearn", "--model", "digits", "--removals", "a.csv", "--debug"], "--debug"),
        (["show", "digits"], "'version'"),
        (["serve", "--mlflow-port", "five"], "--mlflow-port"),
        (["forget"], "forget"),
        (["--verbose", "demo"], "--verbose"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str], words: str) -> None:
    status, text = _invoke(*arguments)
    assert status == 2
    assert words in text


def test_without_arguments_help_is_shown() -> None:
    _status, text = _invoke()
    assert "Usage" in text


class Flow:
    """Stands in for a Prefect flow, which is run for real elsewhere: keeps what it was called with."""

    def __init__(self, answer: object) -> None:
        self.answer, self.called = answer, []

    def __call__(self, *arguments: object) -> object:
        self.called.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Flow:
    """Stands for the check of removal files before a flow starts."""
    check = Flow(None)
    monkeypatch.setattr("oubli.registry.removals.asked.check_removals", check)
    return check


def _outcome(status: Status, **changes: Any) -> RemovalOutcome:
    values = {
        "status": status,
        "removal_key": "0123",
        "model": "digits",
        "parent_version": "1",
        "version": "2",
        "run_id": None,
        "removed": 3,
        "already_removed": 0,
        "unknown": 0,
    }
    return RemovalOutcome.model_validate({**values, **changes})


@pytest.mark.parametrize(
    ("outcome", "status", "words"),
    [
        (_outcome(Status.REGISTERED), 0, "digits: version 2 registered"),
        (_outcome(Status.ALREADY_DONE), 0, "already done, by version 2"),
        (_outcome(Status.NOTHING_TO_REMOVE), 0, "nothing to remove"),
        (_outcome(Status.REFUSED, version=None, reasons=("Test accuracy fell by 0.2.",)), 3, "fell by 0.2"),
    ],
    ids=lambda value: value.status.value if isinstance(value, RemovalOutcome) else "",
)
def test_each_way_a_removal_ends(
    monkeypatch: pytest.MonkeyPatch, checked: Flow, outcome: RemovalOutcome, status: int, words: str
) -> None:
    flow = Flow(outcome)
    monkeypatch.setattr("oubli.flows.unlearn.unlearn", flow)
    found, text = _invoke("unlearn", "--model", "digits", "--removals", "a.csv")
    assert found == status
    assert words in text
    assert flow.called == [("digits", ["a.csv"], UnlearnConfig())]
    assert [arguments[1:] for arguments in checked.called] == [("digits", ["a.csv"], UnknownIds.ERROR)]


@pytest.mark.usefixtures("checked")
def test_options_reach_the_flow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flow = Flow(_outcome(Status.REGISTERED))
    monkeypatch.setattr("oubli.flows.unlearn.unlearn", flow)
    config = tmp_path / "removal.toml"
    config.write_text('steps = 3\nselection = "l_foci"\n')
    given = ["--model", "digits@champion", "--removals", "a.csv", "--removals", "s3://b/c.parquet", "--compare"]
    assert _invoke("unlearn", *given, "--selection", "full")[0] == 0
    # What the command line says stands over the file.
    assert _invoke("unlearn", *given, "--selection", "full", "--config", str(config))[0] == 0
    files = ["a.csv", "s3://b/c.parquet"]
    assert flow.called == [
        ("digits@champion", files, UnlearnConfig(selection=BlockChoice.FULL, compare_with_retraining=True)),
        ("digits@champion", files, UnlearnConfig(selection=BlockChoice.FULL, steps=3, compare_with_retraining=True)),
    ]


@pytest.mark.usefixtures("checked")
def test_an_error_of_a_flow_is_told_like_any_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = UnknownIdsError("2 ids are not in the training data.", remedy="Correct them.")
    monkeypatch.setattr("oubli.flows.unlearn.unlearn", Flow(error))
    monkeypatch.setattr(sys, "argv", ["oubli", "unlearn", "--model", "digits", "--removals", "a.csv"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == ("Error: 2 ids are not in the training data.\nWhat to do: Correct them.\n")


VERSION = RegisteredVersion(name="digits", version="4", run_id=None, tags={}, description="Trained on 5 samples.")


def test_training_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flow = Flow(VERSION)
    monkeypatch.setattr("oubli.flows.train.train", flow)
    path = tmp_path / "digits.toml"
    path.write_text(
        'model = "digits"\ndataset_uri = "digits.parquet"\nloss = "mse"\nl2 = 0.001\n'
        'decoder = {kind = "vector", columns = ["values"]}\n'
        'factory = {target = "my.models:net"}\nretrain = {target = "my.training:fit"}\n'
    )
    status, text = _invoke("train", str(path))
    assert status == 0
    assert "digits: version 4 registered" in text
    assert "Trained on 5 samples." in text
    ((spec,),) = flow.called
    assert (spec.model, spec.l2, spec.factory.target) == ("digits", 0.001, "my.models:net")


@pytest.mark.usefixtures("checked")
def test_retraining(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow(Retrained(VERSION))
    monkeypatch.setattr("oubli.flows.train.retrain", flow)
    assert _invoke("train", "--from", "digits/1", "--removals", "a.csv")[0] == 0
    assert _invoke("train", "--from", "digits")[0] == 0
    assert flow.called == [("digits/1", ["a.csv"]), ("digits", [])]


def test_a_retraining_says_where_the_alias_stayed(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = "The alias 'challenger' stays at version 3, which also removed 2 samples that version 4 still has."
    monkeypatch.setattr("oubli.flows.train.retrain", Flow(Retrained(VERSION, advice)))
    status, text = _invoke("train", "--from", "digits/1")
    assert status == 0
    assert "digits: version 4 registered" in text
    assert advice in text


@pytest.mark.parametrize(
    "arguments", [[], ["--removals", "a.csv"], ["x.toml", "--from", "digits"], ["x.toml", "--removals", "a.csv"]],
    ids=" ".join,
)  # fmt: skip
def test_training_needs_a_file_or_a_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["oubli", "train", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "either a TOML file or --from" in capsys.readouterr().err
