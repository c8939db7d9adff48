"""What people read: the figures are there, and each under its own heading."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from oubli.cli.tables import evidence_table, facts_table, print_outcome, print_trained, this_command
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.removals.outcome import RemovalOutcome, Status


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def cells(console: Console, table: Table) -> dict[str, list[str]]:
    """A rendered table: the cells of each row by its first cell; the headings under ''."""
    console.print(table)
    rows = [
        [cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")]
        for line in shown(console).splitlines()
        if line and line[0] in "│┃"
    ]
    return {row[0]: row[1:] for row in rows}


METRICS = {
    "forget_loss_parent": 0.01234,
    "forget_loss": 0.56789,
    "forget_accuracy_parent": 1.0,
    "forget_accuracy": 0.98765,
    "retained_loss_parent": 0.1,
    "retained_loss": 0.1,
    "test_loss": 0.25,
    "forget_membership_auc_parent": 0.71234,
    "forget_membership_auc": 0.5,
    "retained_gradient_norm_parent": 0.00012345,
    "retained_gradient_norm": 3.2e-9,
    "seconds": 1.234,
}


def test_evidence_stands_under_its_heading(console: Console) -> None:
    columns = {"Parent": "_parent", "This version": "", "Retrained": "_retrained"}
    assert cells(console, evidence_table("Measured", columns, METRICS)) == {
        "": ["Parent", "This version", "Retrained"],
        "Forget loss": ["0.0123", "0.5679", "-"],
        "Forget accuracy": ["100.00 %", "98.77 %", "-"],
        "Retained loss": ["0.1000", "0.1000", "-"],
        "Test loss": ["-", "0.2500", "-"],
        "Forget membership AUC": ["0.712", "0.500", "-"],
        "Retained gradient norm": ["1.23e-04", "3.20e-09", "-"],
        "Seconds": ["-", "1.23", "-"],
    }
    assert shown(console).startswith("Measured")


def test_rows_without_figures_are_left_out(console: Console) -> None:
    # A regression model has no accuracy.
    found = cells(console, evidence_table("Measured", {"This version": ""}, {"test_loss": 0.5}))
    assert set(found) == {"", "Test loss"}


def test_zero_is_a_figure(console: Console) -> None:
    metrics = {"test_accuracy": 0.0, "test_loss": 0.0, "seconds": 0.0, "retained_gradient_norm": 0.0}
    found = cells(console, evidence_table("Measured", {"This version": ""}, metrics))
    assert {name: value for name, (value,) in found.items() if name} == {
        "Test loss": "0.0000",
        "Test accuracy": "0.00 %",
        "Retained gradient norm": "0.00e+00",
        "Seconds": "0.00",
    }


def test_facts_are_shown_whole(console: Console) -> None:
    digest = "0123456789abcdef" * 10
    console.print(facts_table("digits/2", [("Method", "unlearned"), ("Digest", digest)]))
    text = "".join(character for character in shown(console) if character not in " │\n")
    assert digest in text
    assert "Methodunlearned" in text


def test_values_are_no_markup(console: Console) -> None:
    # A request id in square brackets is data, not a style.
    console.print(facts_table("digits/2", [("Request ids", "[red]r-1[/red]"), ("Other", "[/]")]))
    assert "[red]r-1[/red]" in shown(console)
    assert "[/]" in shown(console)


def _outcome(status: Status, **changes: Any) -> RemovalOutcome:
    values = {
        "status": status,
        "removal_key": "0123",
        "model": "digits",
        "parent_version": "4",
        "version": "5",
        "run_id": None,
        "removed": 25,
        "already_removed": 0,
        "unknown": 0,
    }
    return RemovalOutcome.model_validate({**values, **changes})


@pytest.mark.parametrize("status", Status)
def test_every_status_can_be_shown(console: Console, status: Status) -> None:
    outcome = _outcome(status)
    print_outcome(console, outcome)
    assert outcome.headline in shown(console)


def test_a_removal_shows_its_counts_and_where_to_look(console: Console) -> None:
    print_outcome(console, _outcome(Status.REGISTERED, already_removed=3, unknown=2))
    text = shown(console)
    assert (
        "25 samples removed from version 4; 3 samples had been removed before; 2 ids are not in the training data."
        in text
    )
    assert "oubli show digits 5" in text


def test_counts_of_nothing_are_left_out(console: Console) -> None:
    print_outcome(console, _outcome(Status.REGISTERED))
    assert "25 samples removed from version 4.\n" in shown(console)
    assert "before" not in shown(console)


def test_a_refusal_shows_every_reason_and_what_to_do(console: Console) -> None:
    reasons = ("Test accuracy fell by 0.0312 (0.95 to 0.92).", "The retained gradient rose.")
    advice = "Nothing was promoted. To retrain: oubli train --from digits/4 --removals URI"
    print_outcome(console, _outcome(Status.REFUSED, version=None, reasons=reasons, advice=advice))
    text = shown(console)
    assert "digits: refused\n" in text
    assert "25 samples stay in version 4." in text
    for line in (*reasons, advice):
        assert line in text
    assert "oubli show" not in text


def test_a_reason_is_no_markup(console: Console) -> None:
    reason = "Accuracy fell on classes [1, 2] and [bold]."
    print_outcome(console, _outcome(Status.REFUSED, version=None, reasons=(reason,)))
    assert reason in shown(console)


def test_a_trained_version(console: Console) -> None:
    version = RegisteredVersion(name="digits", version="1", run_id=None, tags={}, description="Trained on 5 samples.")
    print_trained(console, version)
    text = shown(console)
    assert "digits: version 1 registered" in text
    assert "Trained on 5 samples." in text
    assert "oubli show digits 1" in text


def test_the_command_is_named_so_that_it_can_be_run_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Path(sys.executable).with_name("oubli")
    monkeypatch.setenv("PATH", str(installed.parent))
    assert this_command() == "oubli"
    monkeypatch.setenv("PATH", "")
    assert Path(this_command()).absolute() == installed
