"""The `oubli` command. Each subcommand is a module of this folder; heavy imports wait until one runs."""

from __future__ import annotations

import sys

import typer

from oubli.cli import demo, plan, select, serve, show, train, unlearn
from oubli.components.errors import OubliError

_HELP = """Remove samples from registered torch models, with evidence.

A removal set and a registered model go in; a new model version with its lineage and measurements, or a refusal with
its reasons, comes out.
"""

_EPILOG = """Start with **oubli demo**: it trains two models, removes 25 samples from each and compares the
result with retraining.

Settings come from the environment: OUBLI_STORE (object store), MLFLOW_TRACKING_URI (model registry), PREFECT_API_URL
(Prefect server), AWS_* (S3). Without them, everything lives in the folder .oubli.
"""

app = typer.Typer(
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(demo.demo)
app.command()(train.train)
app.command()(plan.plan)
app.command()(unlearn.unlearn)
app.command()(show.show)
app.command()(serve.serve)
app.command()(select.select)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"oubli {version('oubli')}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show logs, and stack traces of errors."),
    _version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
    ),
) -> None:
    """Options of every command; they stand before its name."""
    if "--help" in sys.argv:
        return  # leaves nothing behind
    from oubli.registry.settings import load_settings, prepare_environment

    prepare_environment(load_settings(), console_logs=debug)


def main() -> None:
    """Run the command. Exit status: 0 done, 1 error, 2 wrong usage, 3 the removal was refused."""
    try:
        app()
    except OubliError as error:
        if "--debug" in sys.argv:
            raise
        typer.secho(f"Error: {error.problem}", fg=typer.colors.RED, err=True)
        if error.remedy:
            typer.secho(f"What to do: {error.remedy}", err=True)
        sys.exit(1)
