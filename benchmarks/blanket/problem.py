"""The problem: a network that memorises mislabelled samples, and models retrained without them.

Axes: n training samples, m removed ones.

Fashion-MNIST, averaged to 14 x 14; some of the training samples, drawn at random, have wrong labels and are the removal
set. Held-out samples for calibrations are other training images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.unlearning.data import Data, load
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.removal.descent import Optimiser
from oubli.components.removal.surrogate import TrainingSettings

PEAK, BATCH, L2, WARM_UP, HELD_OUT = 0.1, 128, 5e-4, 20, 2000
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


def network() -> nn.Module:
    """A CNN with batch normalisation, 90,658 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(576, 122, bias=False), nn.BatchNorm1d(122), nn.ReLU(), nn.Linear(122, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A removal set, and what is left.

    Attributes:
        scale: How much is run.
        samples: All n, with the removal set's labels.
        removed: The removal set.
        retained: The others.
        test: Test samples.
        held_out: Samples for calibrations.
        models: Folder of trained models.
    """

    scale: Scale
    samples: Samples
    removed: Samples
    retained: Samples
    test: Samples
    held_out: Samples
    models: Path

    @property
    def settings(self) -> TrainingSettings:
        """What a surrogate is told of training."""
        return TrainingSettings(Optimiser.SGD, PEAK, BATCH, self.scale.epochs)

    def original(self, seed: int) -> Objective:
        return _objective(self._trained("original", self.samples, seed))

    def retrained(self) -> list[Objective]:
        return [_objective(self._trained("retrained", self.retained, seed)) for seed in RETRAINED]

    def training_seconds(self) -> float:
        """CPU seconds of a training: one epoch is timed now, since models may come from a busier machine."""
        module = build_seeded(network, 0)
        started = time.process_time()
        _train(module, self.samples, seed=0, epochs=1, of=self.scale.epochs)
        return self.scale.epochs * (time.process_time() - started)

    def _trained(self, kind: str, samples: Samples, seed: int) -> nn.Module:
        path = self.models / f"mislabelled-{kind}-{seed}.pt"
        module = build_seeded(network, seed)
        if not path.is_file():
            _train(module, samples, seed=seed, epochs=self.scale.epochs, of=self.scale.epochs)
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"state": module.state_dict()}, path)
        module.load_state_dict(torch.load(path)["state"])
        return module.eval()


def problem(scale: Scale, data_folder: Path, models: Path) -> Problem:
    """The problem, with its models trained or found in `models`."""
    train, test, held_out = _data(data_folder, scale.training)
    generator = torch.Generator().manual_seed(200)
    places = torch.randperm(scale.training, generator=generator)[: scale.removed].sort().values
    labels = train.labels.clone()
    labels[places] = (labels[places] + torch.randint(1, 10, (scale.removed,), generator=generator)) % 10
    kept = torch.ones(scale.training, dtype=torch.bool)
    kept[places] = False
    samples = Samples(train.inputs, labels)
    retained = samples.select(kept.nonzero().flatten())
    return Problem(scale, samples, samples.select(places), retained, test, held_out, models)


@cache
def _data(folder: Path, training: int) -> tuple[Samples, Samples, Samples]:
    found = load(Data.FASHION, folder, training)
    spare = found.spare.select(torch.arange(HELD_OUT))
    train, test, held_out = (
        Samples(functional.avg_pool2d(one.inputs, 2), one.labels) for one in (found.train, found.test, spare)
    )
    return train, test, held_out


def _objective(module: nn.Module) -> Objective:
    return Objective(module, cross_entropy, L2, dtype=torch.float32)


def _train(module: nn.Module, samples: Samples, *, seed: int, epochs: int, of: int) -> None:
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), lr=PEAK, momentum=0.9, weight_decay=L2)
    steps = of * math.ceil(len(samples) / BATCH)
    warm_up = min(WARM_UP, steps // 2)
    for step, batch in enumerate(_batches(samples, seed, epochs)):
        falling = 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
        optimiser.param_groups[0]["lr"] = PEAK * ((step + 1) / warm_up if step < warm_up else falling)
        optimiser.zero_grad()
        functional.cross_entropy(module(batch.inputs), batch.labels).backward()
        optimiser.step()
    module.eval()


def _batches(samples: Samples, seed: int, epochs: int) -> Iterator[Samples]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(samples), generator=generator)
        for chosen in torch.split(order, BATCH):
            yield samples.select(chosen)


def log_probabilities(logits: Tensor) -> Tensor:
    """(b, C) float64."""
    return functional.log_softmax(logits.double(), 1)


def divergence(reference: Tensor, found: Tensor) -> float:
    """Mean KL(reference || found) of log-probabilities (b, C), in nats."""
    return float((reference.exp() * (reference - found)).sum(1).mean())


def mean_prediction(models: list[Tensor]) -> Tensor:
    """The log of the mean of several models' probabilities, from their log-probabilities (b, C)."""
    return torch.logsumexp(torch.stack(models), 0) - math.log(len(models))
