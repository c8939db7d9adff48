"""Down the ladder: one way after another until one is accepted, then what the policy says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.unlearn_config import NothingToForget, UnlearnConfig, Way, WhenRefused


def descend(
    ways: Sequence[Way],
    config: UnlearnConfig,
    remove: Callable[[UnlearnConfig], RemovalOutcome],
    retrain: Callable[[bool], RemovalOutcome],
) -> RemovalOutcome:
    """The outcome of the first way that is not refused; where all are, what `when_refused` says.

    Args:
        ways: In the order in which they are tried.
        config: Of the removal.
        remove: One removal by the one way that its configuration names.
        retrain: The recipe run again; takes whether it starts from the version's weights.
    """
    refusals: dict[Way, RemovalOutcome] = {}
    for way in ways:
        if way is Way.RETRAIN:
            return _noting(retrain(False), refusals)
        outcome = remove(config.for_way(way))
        if outcome.nothing_to_forget and config.nothing_to_forget is NothingToForget.RETRAIN:
            return retrain(False)
        if outcome.status is not Status.REFUSED:
            return _noting(outcome, refusals)
        refusals[way] = outcome
    if config.when_refused is not WhenRefused.REPORT:
        return _noting(retrain(config.when_refused is WhenRefused.RETRAIN_WARM), refusals)
    return _refused(refusals)


def _noting(outcome: RemovalOutcome, refusals: dict[Way, RemovalOutcome]) -> RemovalOutcome:
    """The outcome, with the reasons why earlier ways were refused."""
    if not refusals or outcome.status not in (Status.REGISTERED, Status.RETRAINED):
        return outcome
    return outcome.model_copy(update={"reasons": _reasons(refusals)})


def _refused(refusals: dict[Way, RemovalOutcome]) -> RemovalOutcome:
    """The last refusal, with the reasons of all."""
    last = list(refusals.values())[-1]
    return last if len(refusals) == 1 else last.model_copy(update={"reasons": _reasons(refusals)})


def _reasons(refusals: dict[Way, RemovalOutcome]) -> tuple[str, ...]:
    return tuple(f"{way.value.capitalize()}: {reason}" for way, one in refusals.items() for reason in one.reasons)
