"""Only what the network may have caused is tried again."""

from __future__ import annotations

import asyncio

import pytest
from prefect.states import Completed, exception_to_failed_state

from oubli.flows.runtime.retries import COMPUTES, GPU, READS_AND_WRITES
from oubli.registry.errors import ModelNotFound, StoreAccessDenied, StoreUnreachable


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StoreUnreachable("No answer.", remedy="Wait."), True),
        (StoreAccessDenied("Wrong key.", remedy="Set it."), False),
        (ModelNotFound("No such model.", remedy="Name another."), False),
        (ValueError("a bug"), False),
    ],
)
@pytest.mark.parametrize("options", [READS_AND_WRITES, COMPUTES])
def test_what_is_tried_again(options: dict, error: Exception, again: bool) -> None:
    state = asyncio.run(exception_to_failed_state(error))
    assert options["retry_condition_fn"](None, None, state) is again
    assert options["retries"] == len(options["retry_delay_seconds"])


def test_success_is_not_tried_again() -> None:
    assert READS_AND_WRITES["retry_condition_fn"](None, None, Completed(data=1)) is False


def test_computing_tasks_can_share_a_gpu() -> None:
    assert GPU in COMPUTES["tags"]
    assert GPU not in READS_AND_WRITES["tags"]
