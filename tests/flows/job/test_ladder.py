"""Down the ladder: who is tried, what follows, and what is told of it."""

from __future__ import annotations

import pytest

from oubli.flows.job.ladder import descend
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.unlearn_config import NothingToForget, UnlearnConfig, Way, WhenRefused

BOTH = (Way.MATCHING, Way.NEWTON)


def outcome(status: Status, **more: object) -> RemovalOutcome:
    own = {"status": status, "removal_key": "k", "model": "m", "parent_version": "1", "version": "2", "run_id": None}
    return RemovalOutcome.model_validate(own | more)


def refused(way: Way) -> RemovalOutcome:
    return outcome(Status.REFUSED, reasons=(f"No {way.value}.",))


class Runs:
    """Refuses the ways it is told to, and notes what was run."""

    def __init__(self, *refusing: Way) -> None:
        self.refusing, self.ran = refusing, list[str]()

    def remove(self, config: UnlearnConfig) -> RemovalOutcome:
        way = Way(config.method)
        # What follows a refusal is no part of a single removal.
        assert (config.ladder, config.when_refused) == ((), WhenRefused.REPORT)
        self.ran.append(way.value)
        return refused(way) if way in self.refusing else outcome(Status.REGISTERED)

    def retrain(self, warm: bool) -> RemovalOutcome:
        self.ran.append("warm" if warm else "cold")
        return outcome(Status.RETRAINED)


def test_the_first_that_is_accepted_ends_it() -> None:
    runs = Runs()
    assert descend(BOTH, UnlearnConfig(), runs.remove, runs.retrain) == outcome(Status.REGISTERED)
    assert runs.ran == ["matching"]


def test_after_a_refusal_the_next_is_tried_and_the_refusal_told() -> None:
    runs = Runs(Way.MATCHING)
    found = descend(BOTH, UnlearnConfig(), runs.remove, runs.retrain)
    assert (found.status, found.reasons) == (Status.REGISTERED, ("Matching: No matching.",))
    assert runs.ran == ["matching", "newton"]


def test_where_all_are_refused_every_reason_is_reported() -> None:
    runs = Runs(*BOTH)
    found = descend(BOTH, UnlearnConfig(), runs.remove, runs.retrain)
    assert (found.status, found.reasons) == (Status.REFUSED, ("Matching: No matching.", "Newton: No newton."))
    alone = descend(BOTH[1:], UnlearnConfig(), runs.remove, runs.retrain)
    assert alone == refused(Way.NEWTON)


@pytest.mark.parametrize(
    ("policy", "start"), [(WhenRefused.RETRAIN, "cold"), (WhenRefused.RETRAIN_WARM, "warm")], ids=str
)
def test_policy_leads_to_retraining(policy: WhenRefused, start: str) -> None:
    runs = Runs(*BOTH)
    found = descend(BOTH, UnlearnConfig(when_refused=policy), runs.remove, runs.retrain)
    assert (found.status, len(found.reasons)) == (Status.RETRAINED, 2)
    assert runs.ran == ["matching", "newton", start]


def test_retraining_can_be_asked_for() -> None:
    runs = Runs()
    assert descend((Way.RETRAIN,), UnlearnConfig(), runs.remove, runs.retrain).status is Status.RETRAINED
    assert runs.ran == ["cold"]


def test_where_there_is_nothing_to_forget_policy_may_ask_for_retraining() -> None:
    nothing = outcome(Status.REFUSED, nothing_to_forget=True)
    runs = Runs()
    config = UnlearnConfig(nothing_to_forget=NothingToForget.RETRAIN)
    assert descend(BOTH, config, lambda _config: nothing, runs.retrain).status is Status.RETRAINED
    assert runs.ran == ["cold"]
