"""Retries and time limits of tasks: only what the network may have caused is tried again."""

from __future__ import annotations

from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from oubli.registry.errors import StoreUnreachable

GPU = "oubli-gpu"
"""Tag of tasks that compute. A concurrency limit on it shares one GPU between flow runs."""


def _network_failed(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), StoreUnreachable)


_IO_RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_condition_fn": _network_failed,
    # The work area is the cache: it outlives a worker, and any machine can read it.
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
READS_AND_WRITES: dict[str, Any] = {**_IO_RETRIES, "timeout_seconds": 3600, "tags": {"oubli-io"}}
COMPUTES: dict[str, Any] = {**_IO_RETRIES, "timeout_seconds": 12 * 3600, "tags": {GPU}}
