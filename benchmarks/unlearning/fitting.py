"""The gate's limits, fitted on some cells, and how often the verdicts are wrong on the others.

python -m benchmarks.unlearning.fitting [FOLDER]    limits and error rates, as JSON on standard output

Fitted are the limits of what may be remembered. Those of overshooting stand as they were set beforehand, far from what
retrained models show, and `accuracy_drop` is what a user allows.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from benchmarks.unlearning.gate import Judged, all_judged
from benchmarks.unlearning.problems import CNN
from benchmarks.unlearning.store import Store
from oubli.components.gate.acceptance_rules import accept
from oubli.components.gate.limits import AcceptanceLimits
from oubli.components.gate.refusals import RefusalCode

Place = tuple[str, str]
"""A cell: its problem and its removal set."""

FITTED_ON = CNN.name
"""The problem that the gate's limits are fitted on, as every setting is; the rates that a record quotes are of all
others."""

CANDIDATES: Mapping[str, tuple[RefusalCode, tuple[float, ...]]] = MappingProxyType(
    {
        "excess_divergence": (RefusalCode.DISAGREES, (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8)),
        "excess_rank": (RefusalCode.TOO_SURE, (0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25)),
        "excess_as_labelled": (RefusalCode.KNOWS_LABELS, (0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3)),
    }
)
"""Each limit, the rule that it belongs to, and the values that are tried."""


@dataclass(frozen=True)
class Counted:
    """How many of some models were accepted."""

    accepted: int = 0
    models: int = 0

    @property
    def share(self) -> float:
        """Accepted; 0 of none."""
        return self.accepted / self.models if self.models else 0.0

    @classmethod
    def of(cls, verdicts: Iterable[bool]) -> Counted:
        found = list(verdicts)
        return cls(sum(found), len(found))


@dataclass(frozen=True)
class Errors:
    """What a gate with some limits does with some models.

    nothing: models of `nothing` that are not good, so that there was something to forget; sabotaged: those of the
    saboteurs that are not good; retrained: all retrained models.
    """

    cells: int
    good: Counted
    bad: Counted
    grossly_bad: Counted
    nothing: Counted
    sabotaged: Counted
    retrained: Counted

    @property
    def models(self) -> int:
        return self.good.models + self.bad.models + self.grossly_bad.models

    @property
    def loss(self) -> float:
        """What limits are chosen by: shares of errors, those on bad models, which are near misses, half as heavy."""
        refused = 1 - self.good.share if self.good.models else 0.0
        return refused + self.grossly_bad.share + self.bad.share / 2 + self.nothing.share + self.sabotaged.share

    @classmethod
    def of(cls, judged: Sequence[Judged], limits: AcceptanceLimits) -> Errors:
        verdicts = [(one, _accepted(one, limits)) for one in judged]
        counts = (Counted.of(accepted for one, accepted in verdicts if belongs(one)) for belongs in GROUPS.values())
        return cls(len({place_of(one) for one in judged}), *counts)


GROUPS: Mapping[str, Callable[[Judged], bool]] = MappingProxyType(
    {
        "good": lambda one: one.quality == "good",
        "bad": lambda one: one.quality == "bad",
        "grossly_bad": lambda one: one.quality == "grossly bad",
        "nothing": lambda one: one.quality != "good" and one.method == "nothing",
        "sabotaged": lambda one: one.quality != "good" and one.group == "saboteur",
        "retrained": lambda one: one.group == "reference",
    }
)
"""Whether a model counts, for each count of `Errors` in their order."""


def fitted(judged: Sequence[Judged]) -> AcceptanceLimits:
    """The limits with the least loss on these models; of several, the one nearest to their median."""
    passed, others = _passed(judged)
    groups = _groups(judged)

    def loss(places: tuple[int, ...]) -> float:
        accepted = others.copy()
        for name, place in zip(CANDIDATES, places, strict=True):
            accepted &= passed[name][:, place]
        return Errors(1, *(Counted(int((accepted & own).sum()), int(own.sum())) for own in groups)).loss

    every = list(itertools.product(*(range(len(values)) for _, values in CANDIDATES.values())))
    losses = np.array([loss(places) for places in every])
    best = np.array(every)[losses <= losses.min() + 1e-12]
    chosen = best[np.abs(best - np.median(best, axis=0)).sum(1).argmin()]
    return dataclasses.replace(
        AcceptanceLimits(),
        **{name: values[place] for (name, (_, values)), place in zip(CANDIDATES.items(), chosen, strict=True)},
    )


def _passed(judged: Sequence[Judged]) -> tuple[dict[str, NDArray[np.bool_]], NDArray[np.bool_]]:
    """By limit, which models (n, values) its rule lets pass; and (n,), which all other rules do."""
    own = {rule for rule, _ in CANDIDATES.values()}
    passed = {name: np.zeros((len(judged), len(values)), bool) for name, (_, values) in CANDIDATES.items()}
    others = np.zeros(len(judged), bool)
    for row, one in enumerate(judged):
        if one.statistics is None:
            continue
        for name, (rule, values) in CANDIDATES.items():
            for place, value in enumerate(values):
                limits = dataclasses.replace(AcceptanceLimits(), **{name: value})
                broken = {each.rule for each in accept(one.statistics, limits).broken}
                passed[name][row, place] = rule not in broken
                others[row] = not broken - own
    return passed, others


def _groups(judged: Sequence[Judged]) -> list[NDArray[np.bool_]]:
    """(n,) for each count of `Errors`, in their order, whether a model belongs to it."""
    return [np.array([belongs(one) for one in judged], bool) for belongs in GROUPS.values()]


def _accepted(one: Judged, limits: AcceptanceLimits) -> bool:
    return one.statistics is not None and accept(one.statistics, limits).accepted


def leave_one_out(judged: Sequence[Judged]) -> list[tuple[Place, AcceptanceLimits, Errors]]:
    """Each cell under limits that were fitted on all others."""
    found = []
    places = list(dict.fromkeys(map(place_of, judged)))
    for place in places if len(places) > 1 else []:
        limits = fitted([one for one in judged if place_of(one) != place])
        found.append((place, limits, Errors.of([one for one in judged if place_of(one) == place], limits)))
    return found


def place_of(one: Judged) -> Place:
    return one.problem, one.kind


def added(parts: Iterable[Errors]) -> Errors:
    """Of several sets of models together."""
    each = list(parts)

    def counted(name: str) -> Counted:
        own = [getattr(one, name) for one in each]
        return Counted(sum(one.accepted for one in own), sum(one.models for one in own))

    names = [field.name for field in dataclasses.fields(Errors) if field.name != "cells"]
    return Errors(sum(one.cells for one in each), **{name: counted(name) for name in names})


def rates(judged: Sequence[Judged]) -> dict[str, object]:
    """Everything that is known of the gate: of the limits of today on the cells they were fitted on and on all others,
    and of limits fitted anew without each cell in turn."""
    own = [one for one in judged if one.problem == FITTED_ON]
    others = [one for one in judged if one.problem != FITTED_ON]
    limits = AcceptanceLimits()
    return {
        "fitted_on": FITTED_ON,
        "limits": dataclasses.asdict(limits),
        "limits_fitted_now": dataclasses.asdict(fitted(own)) if own else None,
        "on_fitted_cells": dataclasses.asdict(Errors.of(own, limits)),
        "on_other_cells": dataclasses.asdict(Errors.of(others, limits)),
        "leave_one_cell_out": dataclasses.asdict(added(errors for _, _, errors in leave_one_out(judged))),
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "build" / "unlearning"
    print(json.dumps(rates(list(all_judged(Store(folder)))), indent=1))


if __name__ == "__main__":
    main()
