"""How a long task shows how far it is: a bar on a terminal, a progress artifact and log lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from oubli.components.progress import Progress

_STEP = 0.1


@contextmanager
def progress(description: str) -> Iterator[Progress]:
    """Yields a function that takes the fraction done, 0 to 1."""
    if sys.stderr.isatty():
        with _bar(description) as on_progress:
            yield on_progress
    else:
        yield _page(description)


@contextmanager
def _bar(description: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<28}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction)


def _page(description: str) -> Progress:
    logger = get_run_logger()
    # A coroutine only where an event loop runs, and tasks here are synchronous.
    artifact = cast(UUID, create_progress_artifact(progress=0.0, description=description))
    shown = 0.0

    def report(fraction: float) -> None:
        nonlocal shown
        if fraction >= shown + _STEP or (fraction >= 1.0 > shown):
            shown = fraction
            logger.info("%s: %.0f %%", description, 100 * fraction)
            update_progress_artifact(artifact, progress=100 * fraction)

    return report
