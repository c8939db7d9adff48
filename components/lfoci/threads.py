"""A few threads that share the work of one selection.

Plain Python threads: the kernels and numpy's long loops let go of the interpreter. Numba's own threading
layers are avoided, as they abort when two selections run at once from different threads, which task runners
do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from oubli.components.errors import ConfigurationError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Crew:
    """`threads` threads, every core this process may use by default; one means the caller's own."""

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ConfigurationError(f"threads: expected at least 1, found {threads}.", remedy="None takes every core.")
        self.threads = threads or _cores()
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`function` of each item; the results in the items' order."""
        if self._pool is None:
            return [function(item) for item in items]
        pending = [self._pool.submit(function, item) for item in items]
        return [future.result() for future in pending]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
