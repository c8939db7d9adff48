"""A removal's outcome as a page in Prefect, beside the run that made it."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact

from oubli.registry.removals.outcome import RemovalOutcome


def show_outcome(outcome: RemovalOutcome) -> None:
    """Create the page. It holds counts, versions and reasons, no ids."""
    lines = [f"# {outcome.headline}", ""]
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
