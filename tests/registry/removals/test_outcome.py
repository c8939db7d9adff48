"""How an outcome is said in one line."""

from __future__ import annotations

import pytest

from oubli.registry.removals.outcome import RemovalOutcome, Status


@pytest.mark.parametrize(
    ("status", "version", "words"),
    [
        (Status.REGISTERED, "2", "digits: version 2 registered"),
        (Status.ALREADY_DONE, "2", "digits: already done, by version 2"),
        (Status.NOTHING_TO_REMOVE, "1", "digits: nothing to remove"),
        (Status.REFUSED, None, "digits: refused"),
    ],
)
def test_headlines(status: Status, version: str | None, words: str) -> None:
    outcome = RemovalOutcome(
        status=status,
        removal_key="0123",
        model="digits",
        parent_version="1",
        version=version,
        run_id=None,
        removed=0,
        already_removed=0,
        unknown=0,
    )
    assert outcome.headline.startswith(words)
    assert RemovalOutcome.model_validate_json(outcome.model_dump_json()) == outcome
