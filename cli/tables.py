"""What people read on a terminal: outcomes, versions, evidence.

Names and ids are printed as Text: a square bracket in one is no markup of rich's.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oubli.registry.removals.outcome import RemovalOutcome, Status

if TYPE_CHECKING:
    from oubli.flows.job.plan import Plan
    from oubli.registry.models.model_registry import RegisteredVersion

_STYLES = {
    Status.REGISTERED: "green",
    Status.RETRAINED: "green",
    Status.ALREADY_DONE: "cyan",
    Status.NOTHING_TO_REMOVE: "cyan",
    Status.REFUSED: "red",
}
_SETS = {"forget": "Forget", "retained": "Retained", "test": "Test"}


def this_command() -> str:
    """How to call `oubli` from here: by its path where its environment is not on the search path."""
    if shutil.which("oubli") is not None:
        return "oubli"
    path = Path(sys.executable).with_name("oubli")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def print_outcome(console: Console, outcome: RemovalOutcome) -> None:
    """One headline, the counts, and for a refusal every reason and what to do."""
    console.print(Text(outcome.headline, style=f"bold {_STYLES[outcome.status]}"))
    parts = []
    if outcome.status is Status.REFUSED:
        parts.append(f"{outcome.removed} samples stay in version {outcome.parent_version}")
    elif outcome.removed:
        parts.append(f"{outcome.removed} samples removed from version {outcome.parent_version}")
    if outcome.already_removed:
        parts.append(f"{outcome.already_removed} samples had been removed before")
    if outcome.unknown:
        parts.append(f"{outcome.unknown} ids are not in the training data")
    console.print("; ".join(parts) + ".")
    for reason in outcome.reasons:
        console.print(Text(f"  - {reason}"))
    if outcome.advice:
        console.print(Text(outcome.advice), soft_wrap=True)
    if outcome.version:
        console.print(Text(f"Evidence: {this_command()} show {outcome.model} {outcome.version}"), soft_wrap=True)


def print_plan(console: Console, plan: Plan) -> None:
    """The ways that a removal would try, in their order, and what follows where all are refused."""
    console.print(
        Text(f"{plan.model}: {plan.removed} samples to remove from version {plan.parent_version}", style="bold")
    )
    if not plan.ways:
        console.print("None of the samples is left in it: there is nothing to do.")
        return
    table = Table("Way", "Why", "Cost", "What may refuse it")
    for each in plan.ways:
        table.add_row(*(Text(cell) for cell in each.row))
    console.print(table)
    if plan.trained_seconds is not None:
        console.print(f"Training took {plan.trained_seconds:.1f} s.")
    console.print(f"Settings of training: {plan.settings}. Where every way is refused, {plan.then}.")


def print_trained(console: Console, version: RegisteredVersion, advice: str = "") -> None:
    """One headline, what the version was trained on, and what is left to do where an alias stayed elsewhere."""
    console.print(Text(f"{version.name}: version {version.version} registered", style="bold green"))
    console.print(Text(version.description))
    if advice:
        console.print(Text(advice), soft_wrap=True)
    console.print(Text(f"Evidence: {this_command()} show {version.name} {version.version}"), soft_wrap=True)


def evidence_table(title: str, columns: Mapping[str, str], metrics: Mapping[str, float]) -> Table:
    """Loss and accuracy on the three sets for several models, and how well an attacker tells members from test samples.

    columns: heading -> suffix of the metrics' names.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in columns:
        table.add_column(heading, justify="right")
    for key, name in _SETS.items():
        for measure in ("loss", "accuracy", "class_mean_accuracy"):
            values = [metrics.get(f"{key}_{measure}{suffix}") for suffix in columns.values()]
            if any(value is not None for value in values):
                table.add_row(f"{name} {measure.replace('_', ' ')}", *(_cell(value, measure) for value in values))
    for key in ("forget", "retained"):
        values = [metrics.get(f"{key}_membership_auc{suffix}") for suffix in columns.values()]
        if any(value is not None for value in values):
            table.add_row(
                f"{_SETS[key]} membership AUC", *("-" if value is None else f"{value:.3f}" for value in values)
            )
    gradients = [metrics.get(f"retained_gradient_norm{suffix}") for suffix in columns.values()]
    if any(value is not None for value in gradients):
        table.add_row("Retained gradient norm", *("-" if value is None else f"{value:.2e}" for value in gradients))
    seconds = [metrics.get(f"seconds{suffix}") for suffix in columns.values()]
    if any(value is not None for value in seconds):
        table.add_row("Seconds", *("-" if value is None else f"{value:.2f}" for value in seconds))
    return table


def facts_table(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Two columns: a name and its value."""
    table = Table(title=Text(title, style="bold"), title_justify="left", show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def _cell(value: float | None, measure: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if measure.endswith("accuracy") else f"{value:.4f}"
