"""Every method by name, with the settings that its figures belong to.

Settings were chosen on `images-cnn` alone and hold for every cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.unlearning.methods import matching, newton, sabotage, saliency, training
from benchmarks.unlearning.methods.task import (
    BLANKET_COPIES,
    BLANKET_SAMPLES,
    SHARE,
    Task,
    matching_plan,
    surrogate_plan,
)
from benchmarks.unlearning.problems import Bench
from oubli.components.model.state import ModelState

VERSION = 1
"""Raised where a change of the code, and not of a setting, makes earlier figures another's."""


class Group(StrEnum):
    """What a method is there for."""

    OWN = "own"
    PEER = "peer"
    SABOTEUR = "saboteur"


class Shared(StrEnum):
    """What several methods start from; its seconds count for each of them."""

    PREDICTION = "prediction"
    BLANKET = "blanket"


@dataclass(frozen=True)
class Method:
    """everywhere: whether it runs on every original model, or on the first alone."""

    name: str
    run: Callable[[Task], ModelState]
    group: Group = Group.PEER
    shared: tuple[Shared, ...] = ()
    everywhere: bool = False
    settings: tuple[object, ...] = ()

    def digest_of(self, bench: Bench) -> list[object]:
        """Everything that the method's figures depend on beside the cell."""
        found: list[object] = [VERSION, self.name, *self.settings]
        if Shared.PREDICTION in self.shared or self.group is Group.SABOTEUR or self.run is matching.chain:
            found += [dataclasses.asdict(surrogate_plan(bench)), dataclasses.asdict(matching_plan())]
        if Shared.BLANKET in self.shared:
            found += [BLANKET_COPIES, BLANKET_SAMPLES]
        return found


def nothing(task: Task) -> ModelState:
    return ModelState.of(task.objective, task.theta)


_PREDICTED, _BLOCK = (Shared.PREDICTION,), (Shared.BLANKET,)
_ONE, _MANY = (dataclasses.asdict(newton.ONE),), (dataclasses.asdict(newton.MANY),)

METHODS = (
    Method("nothing", nothing, Group.OWN, everywhere=True),
    Method("matching", matching.match_all, Group.OWN, _PREDICTED, everywhere=True),
    *(
        Method(
            f"fine-tuning-x{factor:g}",
            lambda task, factor=factor: training.fine_tuning(task, factor),
            everywhere=factor > 0.5,
            settings=(factor, SHARE),
        )
        for factor in training.RATES
    ),
    Method(
        "fine-tuning-anchored",
        training.anchored,
        everywhere=True,
        settings=(training.ANCHOR, training.ANCHOR_RATE, SHARE),
    ),
    Method("newton-8-steps", newton.many_steps, Group.OWN, everywhere=True, settings=_MANY),
    Method("newton", newton.one_step, Group.OWN, settings=_ONE),
    Method("short-retraining", training.short_retraining, everywhere=True, settings=(SHARE,)),
    Method("matching-blanket", matching.match_blanket, Group.OWN, (*_PREDICTED, *_BLOCK)),
    Method("matching-output-layer", matching.match_output_layer, Group.OWN, _PREDICTED),
    Method("scrub", training.scrub, settings=(*training.SCRUB, SHARE)),
    Method(
        "neggrad-plus", training.negative_gradient, settings=(training.NEGATIVE_SHARE, training.NEGATIVE_RATE, SHARE)
    ),
    Method("salun", saliency.random_labels, settings=(saliency.SALIENT, saliency.SALIENCY_RATE, SHARE)),
    Method("ssd", saliency.dampening, settings=(saliency.DAMPENING, saliency.SELECTION, saliency.IMPORTANCE_SAMPLES)),
    Method("newton-blanket", newton.on_blanket, Group.OWN, _BLOCK, settings=_ONE),
    Method("newton-random-block", newton.on_random, Group.OWN, _BLOCK, settings=_ONE),
    Method("newton-top-gradient", newton.on_top_gradient, Group.OWN, _BLOCK, settings=_ONE),
    Method("wrong-samples", sabotage.wrong_samples, Group.SABOTEUR, everywhere=True),
    Method("wrong-targets", sabotage.wrong_targets, Group.SABOTEUR, _PREDICTED, everywhere=True),
    Method("wrong-sign", newton.wrong_sign, Group.SABOTEUR, settings=_MANY),
    Method("overshoot", sabotage.overshoot, Group.SABOTEUR, _PREDICTED, settings=(sabotage.TIMES,)),
    Method("random-step", sabotage.random_step, Group.SABOTEUR, _PREDICTED),
    Method("random-weights", sabotage.random_weights, Group.SABOTEUR),
)

CHAIN = Method("matching-chain", matching.chain, Group.OWN, everywhere=True, settings=(matching.LINKS,))
"""On the first two cells alone: it costs as much as ten removals."""
