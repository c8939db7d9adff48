"""`oubli show`: lineage and evidence of one version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion


def show(
    name: Annotated[str, typer.Argument(help="Registered model.", show_default=False)],
    version: Annotated[str, typer.Argument(help="Version number.", show_default=False)],
) -> None:
    """Show where a version comes from and what was measured on it.

    Example: oubli show digits-cnn 2
    """
    from rich.console import Console

    from oubli.cli.tables import evidence_table, facts_table
    from oubli.registry.models.model_registry import ModelRegistry
    from oubli.registry.models.tags import OF_PARENT, OF_RETRAINED, Metric
    from oubli.registry.settings import load_settings

    console = Console()
    registry = ModelRegistry(load_settings())
    shown = registry.version(name, version)
    console.print(facts_table(shown.label, _lineage(registry, shown)))
    run = registry.run(shown)
    if run is None:
        console.print("No MLflow run belongs to this version, so nothing was measured.")
        return
    metrics = run.metrics
    columns = {"Parent": OF_PARENT, "This version": "", "Retrained": OF_RETRAINED}
    measured = {heading: suffix for heading, suffix in columns.items() if f"{Metric.TEST_LOSS}{suffix}" in metrics}
    console.print(evidence_table("Measured", measured, metrics))
    if Metric.PARAMETER_DISTANCE_TO_RETRAINED in metrics:
        console.print(
            f"Distance to the retrained weights: {metrics[Metric.PARAMETER_DISTANCE_TO_RETRAINED]:.2e} of the parent's."
        )
    console.print("A record of what was run and measured. It does not prove that nothing of the samples is left.")


def _lineage(registry: ModelRegistry, shown: RegisteredVersion) -> list[tuple[str, str]]:
    from oubli.registry.models import tags

    aliases = ", ".join(f"@{alias}" for alias in registry.aliases(shown)) or "none"
    rows = [("Aliases", aliases), ("Lineage", _ancestry(registry, shown)), ("MLflow run", shown.run_id or "none")]
    if (run := registry.run(shown)) is not None:
        rows += [(_title(key), value) for key, value in run.params.items()]
    digest = shown.tags.get(tags.WEIGHTS_SHA256)
    return rows + ([("Weights SHA-256", digest)] if digest else [])


def _ancestry(registry: ModelRegistry, version: RegisteredVersion) -> str:
    """'3 (unlearned) from 2 (unlearned) from 1 (trained)'."""
    from oubli.registry.models import tags

    methods = {
        each.version: each.tags.get(tags.METHOD, "registered elsewhere") for each in registry.versions(version.name)
    }
    steps = (version.version, *version.ancestors)
    return " from ".join(f"{step} ({methods.get(step, 'deleted')})" for step in steps)


def _title(param: str) -> str:
    return param.replace("_", " ").capitalize().replace("sha256", "SHA-256")
