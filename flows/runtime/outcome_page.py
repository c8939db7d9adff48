"""A removal's outcome as a page in Prefect, beside the run that made it."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.artifacts import create_markdown_artifact

from oubli.registry.removals.outcome import RemovalOutcome


def show_outcome(outcome: RemovalOutcome, plan: Sequence[Sequence[str]] = ()) -> None:
    """Create the page. It holds the plan, counts, versions and reasons, no ids.

    Args:
        outcome: How the removal ended.
        plan: Rows of what was planned: way, why, cost, what may refuse it.
    """
    lines = [f"# {outcome.headline}", ""]
    if plan:
        lines += ["| Planned way | Why | Cost | What may refuse it |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in plan] + [""]
    lines += [f"- {reason}" for reason in outcome.reasons]
    if outcome.advice:
        lines += ["", outcome.advice]
    lines += [
        "",
        "| | |",
        "|---|---|",
        f"| Model | {outcome.model} |",
        f"| Parent version | {outcome.parent_version} |",
        f"| New version | {outcome.version or 'none'} |",
        f"| Samples removed now | {outcome.removed} |",
        f"| Removed before | {outcome.already_removed} |",
        f"| Not in the training data | {outcome.unknown} |",
        f"| MLflow run | {outcome.run_id or 'none'} |",
    ]
    create_markdown_artifact("\n".join(lines), key="removal-outcome", description=outcome.headline)
