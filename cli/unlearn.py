"""`oubli unlearn`: remove samples from a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


# long: its options and what they mean take most of it.
def unlearn(
    model: Annotated[
        str, typer.Option(help="NAME (the head of its lineage), NAME@alias or NAME/version.", show_default=False)
    ],
    removals: Annotated[
        list[str],
        typer.Option(
            help="Removal set: URI or path of a Parquet, CSV or JSON-lines file with a sample_id or subject_id column. "
            "May be given more than once.",
            show_default=False,
        ),
    ],
    selection: Annotated[
        Literal["auto", "l_foci", "l_foci_batch", "top_gradient", "random", "full"],
        typer.Option(
            help="Parameters to update: all, the Markov blanket that L-FOCI selects, or for comparison a block of "
            "block_size parameters (--config)."
        ),
    ] = "auto",
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with further settings (README.md, 'Settings'). Its table [limits] sets when to refuse: "
            "accuracy_drop, loss_rise, class_gone, distance, convex_gradient_fraction, gradient_floor, drift, "
            "overshoot, excess_divergence, excess_rank, excess_as_labelled, memory_left, pushed_away, membership_off.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        Literal["auto", "newton", "matching", "retrain"],
        typer.Option(help="How samples are removed; 'auto' tries the best way for the model, then the next."),
    ] = "auto",
    compare: Annotated[
        bool, typer.Option("--compare", help="Also retrain without the samples and report both. Slow.")
    ] = False,
) -> None:
    """Remove samples from a registered model and register the result, or refuse with reasons.

    Example: oubli unlearn --model digits-cnn --removals s3://bucket/removals/today.csv

    Running it again resumes what was interrupted, and makes no second version of what is done. Exit status 3 means
    refused: each reason says what may help, and when_refused = "retrain" (--config) retrains by itself.
    """
    from rich.console import Console

    from oubli.cli.tables import print_outcome
    from oubli.cli.toml import read_toml, validated
    from oubli.registry.removals.asked import check_removals
    from oubli.registry.removals.outcome import Status
    from oubli.registry.removals.unlearn_config import UnlearnConfig
    from oubli.registry.settings import load_settings

    chosen: dict[str, object] = {}
    chosen |= {name: value for name, value in (("method", method), ("selection", selection)) if value != "auto"}
    if compare:
        chosen["compare_with_retraining"] = True
    if config is not None:
        settings = read_toml(config, UnlearnConfig, overrides=chosen)
    else:
        settings = validated(chosen, UnlearnConfig, source="The command line", remedy="Set the rest with --config.")
    check_removals(load_settings(), model, removals, settings.unknown_ids)
    # Late: torch and Prefect take seconds to start, and what is wrong with a request has been found by now.
    from oubli.flows.unlearn import unlearn as unlearn_flow

    outcome = unlearn_flow(model, removals, settings)
    print_outcome(Console(), outcome)
    if outcome.status is Status.REFUSED:
        raise typer.Exit(3)
