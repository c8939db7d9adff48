"""`oubli train`: train a model with its training record, or retrain one without removed samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    spec: Annotated[
        Path | None, typer.Argument(help="TOML file: model, data, recipe, as examples/digits.toml.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", help="Retrain this version's recipe: NAME, NAME@alias or NAME/version.", show_default=False
        ),
    ] = None,
    removals: Annotated[
        list[str] | None,
        typer.Option(
            help="With --from: train without these samples, and without any removed before.", show_default=False
        ),
    ] = None,
) -> None:
    """Train a model and register it with its training record, or retrain one without removed samples.

    Examples: oubli train digits.toml

    oubli train --from digits-cnn --removals removals.csv
    """
    if (spec is None) == (source is None) or (removals and source is None):
        raise typer.BadParameter("give either a TOML file or --from; --removals goes with --from.")

    from rich.console import Console

    from oubli.cli.tables import print_trained
    from oubli.cli.toml import read_toml
    from oubli.registry.removals.asked import check_removals
    from oubli.registry.removals.removal_set import UnknownIds
    from oubli.registry.settings import load_settings
    from oubli.registry.training.train_spec import TrainSpec

    wanted = None if spec is None else read_toml(spec, TrainSpec)
    if removals:
        check_removals(load_settings(), source or "", removals, UnknownIds.ERROR)
    # Late: torch and Prefect take seconds to start, and what is wrong with a request has been found by now.
    from oubli.flows.train import retrain as retrain_flow
    from oubli.flows.train import train as train_flow

    if wanted is not None:
        print_trained(Console(), train_flow(wanted))
        return
    retrained = retrain_flow(source or "", removals or [])
    print_trained(Console(), retrained.version, retrained.advice)
