"""`oubli serve`: the MLflow and Prefect pages on the local store, and a worker for triggers."""

from __future__ import annotations

import signal
from typing import Annotated

import typer


def serve(
    worker: Annotated[
        bool, typer.Option("--worker", help="Also deploy the flows and start a worker that runs them.")
    ] = False,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow page.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect page.")] = 4200,
) -> None:
    """Open MLflow and Prefect on what the local store holds. Both listen on this machine only; Ctrl-C stops them.

    With --worker, the deployments 'unlearn' (by hand, from Prefect's page) and 'compliance' (daily) run here.
    """
    from rich.console import Console

    from oubli.cli.services import Services
    from oubli.registry.settings import load_settings

    # A service manager's stop must end the children as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    with Services(load_settings(), mlflow_port=mlflow_port, prefect_port=prefect_port) as services:
        with console.status("Starting MLflow and Prefect (about 15 s)"):
            services.start_pages()
        console.print(f"MLflow   {services.mlflow_url}")
        console.print(f"Prefect  {services.prefect_url}")
        if worker:
            with console.status("Deploying the flows"):
                services.deploy()
            services.start_worker()
            console.print(f"Worker   takes runs of [bold]{services.prefect_url}/deployments[/bold]")
        console.print("Ctrl-C stops everything.")
        services.wait()
