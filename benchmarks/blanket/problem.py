"""The problem: a network that memorises mislabelled samples, and models retrained without them.

Axes: n training samples, m removed ones.

It is the cell `images-cnn`, `mislabelled` of benchmarks.unlearning, with models of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from benchmarks.unlearning.problems import CNN, Bench, RemovalKind, bench, train
from benchmarks.unlearning.removals import RemovalSet
from benchmarks.unlearning.store import Store
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples

RETRAINED = (10, 11, 12)
OUTPUT_LAYER = "12"


@dataclass(frozen=True)
class Scale:
    """How much is run.

    Attributes:
        training: Samples.
        removed: Mislabelled ones among them.
        epochs: Of a training.
        originals: Seeds.
        looked_at: Removed samples that slices are selected for, and as many retained ones with the same labels.
        copies: N.
        fewer: N, where fewer are tried.
        singles: Removal sets of one sample.
        tens: How many samples make a set of some.
        steps: Of matching.
        curvature: Retained samples that Newton's curvature is taken on.
        judged: Retained samples at most that the drift is measured on; of test samples, twice as many.
    """

    training: int = 5000
    removed: int = 100
    epochs: int = 30
    originals: tuple[int, ...] = (0, 1)
    looked_at: int = 20
    copies: int = 1000
    fewer: tuple[int, ...] = (250, 500)
    singles: int = 4
    tens: int = 10
    steps: int = 50
    curvature: int = 512
    judged: int = 1000


WHOLE = Scale()
QUICK = Scale(
    training=600, removed=12, epochs=3, looked_at=4, copies=100, fewer=(50,), singles=1, tens=4,
    steps=5, curvature=32, judged=100,
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A removal set, and what is left.

    Attributes:
        scale: How much is run.
        bench: The samples and the network.
        removal: All n samples, with the removal set's labels, and which of them are removed.
        models: Folder of trained models.
    """

    scale: Scale
    bench: Bench
    removal: RemovalSet
    models: Path

    @cached_property
    def removed(self) -> Samples:
        return self.removal.removed

    @cached_property
    def retained(self) -> Samples:
        return self.removal.retained

    def original(self, seed: int) -> Objective:
        return self.bench.objective(self._trained("original", self.removal.train, seed))

    def retrained(self) -> list[Objective]:
        return [self.bench.objective(self._trained("retrained", self.retained, seed)) for seed in RETRAINED]

    def training_seconds(self) -> float:
        """CPU seconds of a training: one epoch is timed now, since models may come from a busier machine."""
        recipe = self.bench.problem.recipe
        module = self.bench.build(0)
        started = time.process_time()
        train(module, self.removal.train, recipe.shortened(epochs=1, peak_rate=recipe.peak_rate), seed=0)
        return recipe.epochs * (time.process_time() - started)

    def _trained(self, kind: str, samples: Samples, seed: int) -> nn.Module:
        path = self.models / f"mislabelled-{kind}-{seed}.pt"
        module = self.bench.build(seed)
        if not path.is_file():
            train(module, samples, self.bench.problem.recipe, seed=seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"state": module.state_dict()}, path)
        module.load_state_dict(torch.load(path)["state"])
        return module.eval()


def problem(scale: Scale, data_folder: Path, models: Path) -> Problem:
    """The problem, with its models trained or found in `models`."""
    settings = replace(CNN, samples=scale.training, many=scale.removed, recipe=replace(CNN.recipe, epochs=scale.epochs))
    ready = bench(settings, data_folder)
    return Problem(scale, ready, Store(models).removal(ready, RemovalKind.MISLABELLED), models)


def first(samples: Samples, count: int) -> Samples:
    """As many, or all where there are fewer."""
    return samples.select(torch.arange(min(count, len(samples))))
