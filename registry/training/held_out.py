"""Which rows a network's removal is calibrated and judged on, and which its figures are reported on.

Neither was trained on. Where the data has a validation split, that is held out and the test split reported on. Else
half of the test rows are held out, and figures are those of the other half: what decides must not also report. A convex
model needs no held-out rows, and reports on the whole test split.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from oubli.registry.storage.keyed_digests import store_seed
from oubli.registry.training.training_data import ParquetSamples, TrainingData
from oubli.registry.training.training_record import Split, TrainingRecord

MOST_HELD_OUT = 10_000
"""A calibration has a number per class to find, and a removed sample is ranked among tens: more would only cost."""


class HeldOutFrom(StrEnum):
    """Where the held-out rows come from."""

    VALIDATION = "validation"
    TEST = "half of test"
    NOWHERE = "none"


@dataclass(frozen=True)
class HeldOut:
    """The rows that were never trained on.

    Attributes:
        source: Where the held-out rows come from.
        held_out: V; None for a convex model.
        test: What figures are reported on.
    """

    source: HeldOutFrom
    held_out: ParquetSamples | None = field(repr=False)
    test: ParquetSamples = field(repr=False)


def held_out_rows(data: TrainingData, record: TrainingRecord, store_root: str) -> HeldOut:
    """The rows that a removal is calibrated on and those that it is reported on, the same in every run.

    Args:
        data: The record's data.
        record: How the model was trained.
        store_root: URI of the store, whose secret the draws follow: nobody can guess which rows decide.
    """
    test = data.samples(Split.TEST)
    if record.convex:
        return HeldOut(HeldOutFrom.NOWHERE, None, test)
    if record.dataset.split.validation is not None:
        rows = data.samples(Split.VALIDATION)
        chosen = keyed_choice(rows.ids(), MOST_HELD_OUT, store_root, "held-out")
        return HeldOut(HeldOutFrom.VALIDATION, data.samples(Split.VALIDATION, only=chosen), test)
    ids = test.ids()
    chosen = keyed_choice(ids, min(len(ids) // 2, MOST_HELD_OUT), store_root, "held-out")
    return HeldOut(HeldOutFrom.TEST, data.samples(Split.TEST, only=chosen), data.samples(Split.TEST, without=chosen))


def keyed_choice(ids: tuple[str, ...], count: int, store_root: str, purpose: str) -> frozenset[str]:
    """`count` of the ids, drawn by the store's secret: the same in every run; all where there are no more.

    Args:
        ids: What is drawn from, in stored order.
        count: How many.
        store_root: URI of the store.
        purpose: Keeps draws for different purposes apart.
    """
    if count >= len(ids):
        return frozenset(ids)
    seed = store_seed(store_root, [purpose, *ids])
    chosen = np.random.default_rng(seed).choice(len(ids), count, replace=False)
    return frozenset(ids[position] for position in chosen)
