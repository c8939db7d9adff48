"""`oubli plan`: what a removal would do and cost, without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plan(
    model: Annotated[
        str, typer.Option(help="NAME (the head of its lineage), NAME@alias or NAME/version.", show_default=False)
    ],
    removals: Annotated[
        list[str],
        typer.Option(help="Removal set, as for oubli unlearn. More than once for several.", show_default=False),
    ],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings, as for oubli unlearn.", show_default=False)
    ] = None,
) -> None:
    """Show the ways that a removal would try, why, what each costs, and what may refuse it. Nothing is trained.

    Example: oubli plan --model digits-cnn --removals removals.csv
    """
    from rich.console import Console

    from oubli.cli.tables import print_plan
    from oubli.cli.toml import read_toml
    from oubli.registry.removals.asked import check_removals
    from oubli.registry.removals.unlearn_config import UnlearnConfig
    from oubli.registry.settings import load_settings

    settings = UnlearnConfig() if config is None else read_toml(config, UnlearnConfig)
    check_removals(load_settings(), model, removals, settings.unknown_ids)
    # Late: torch takes seconds to start, and what is wrong with a request has been found by now.
    from oubli.flows.stages.planning import plan_removal

    print_plan(Console(), plan_removal(load_settings(), model, removals, settings))
