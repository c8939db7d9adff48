"""What is removed from: a data set, a network, and how the network is trained.

Axes: n samples, H height, W width, T tokens.

Images of Fashion-MNIST are averaged over 2 x 2 pixels: a training then takes under a minute on one thread, and a
removal set can be retrained without several times. `images-cnn` fits all but a few in a thousand of its training
samples: it is the problem that every setting was chosen on. `images-cnn-regular`, the same network under a strong L2
term and for fewer epochs, hardly memorises.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.unlearning.data import FILES, PADDING, Data, DataSet, load
from oubli.components.blocks.perturbation import Perturbation
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded, seeded
from oubli.components.reference.models import small_cnn, small_resnet
from oubli.components.reference.text_models import text_encoder
from oubli.components.removal.descent import Optimiser, cosine
from oubli.components.removal.surrogate import TrainingSettings

HELD_OUT, TEST = 2000, 4000
"""The most samples of V, and of the test set that figures are reported on."""


class Model(StrEnum):
    """The networks."""

    CNN = "cnn"
    SMALL_CNN = "small_cnn"
    RESNET = "resnet"
    ENCODER = "encoder"


class RemovalKind(StrEnum):
    """The removal sets; what is in them, `removals` says."""

    RANDOM = "random"
    MISLABELLED = "mislabelled"
    MISLABELLED_FEW = "mislabelled-few"
    MEMORISED = "memorised"
    CLUSTER = "cluster"
    BACKDOOR = "backdoor"
    HALF_CLASS = "half-class"
    OWNERS = "owners"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: a rate that rises to its peak and falls to 0 along a half cosine."""

    optimiser: Optimiser
    peak_rate: float
    batch_size: int
    epochs: int
    l2: float
    warm_up: int = 20
    momentum: float = 0.9

    @property
    def settings(self) -> TrainingSettings:
        """What a removal is told of it."""
        return TrainingSettings(self.optimiser, self.peak_rate, self.batch_size, self.epochs, self.momentum)

    def shortened(self, *, epochs: int, peak_rate: float) -> Recipe:
        """The same for fewer epochs and with another peak rate."""
        return dataclasses.replace(self, epochs=epochs, peak_rate=peak_rate)


@dataclass(frozen=True)
class Problem:
    """A network on a data set; `samples`: of the training set, None for all; `many`: the size of most removal sets."""

    name: str
    data: Data
    model: Model
    recipe: Recipe
    samples: int | None = 5000
    many: int = 100
    few: int = 20

    @property
    def training_digest(self) -> str:
        """Of what a training depends on beside its samples and its seed."""
        return digest([self.data, self.model, dataclasses.asdict(self.recipe)])


SGD_30 = Recipe(Optimiser.SGD, 0.1, 128, 30, 5e-4)
ADAM_16 = Recipe(Optimiser.ADAM, 5e-3, 64, 16, 1e-5)

CNN = Problem("images-cnn", Data.FASHION, Model.CNN, SGD_30)
RESNET = Problem("images-resnet", Data.FASHION, Model.RESNET, SGD_30)
INTENTS = Problem("intents-encoder", Data.BANKING, Model.ENCODER, ADAM_16)
CLAUSES = Problem("clauses-encoder", Data.CUAD, Model.ENCODER, ADAM_16)
REGULAR = Problem("images-cnn-regular", Data.FASHION, Model.CNN, dataclasses.replace(SGD_30, epochs=8, l2=5e-3))
WHOLE = Problem("images-cnn-whole", Data.FASHION, Model.CNN, SGD_30, samples=None)

GRID = (
    (CNN, RemovalKind.MISLABELLED),
    (CNN, RemovalKind.RANDOM),
    (CNN, RemovalKind.BACKDOOR),
    (CNN, RemovalKind.MEMORISED),
    (INTENTS, RemovalKind.MISLABELLED),
    (CNN, RemovalKind.CLUSTER),
    (RESNET, RemovalKind.MISLABELLED),
    (CNN, RemovalKind.HALF_CLASS),
    (INTENTS, RemovalKind.RANDOM),
    (CLAUSES, RemovalKind.OWNERS),
    (REGULAR, RemovalKind.RANDOM),
    (RESNET, RemovalKind.RANDOM),
    (CLAUSES, RemovalKind.MISLABELLED),
    (RESNET, RemovalKind.MEMORISED),
    (CNN, RemovalKind.MISLABELLED_FEW),
)
"""The cells, the most telling first."""

WHOLE_GRID = ((WHOLE, RemovalKind.MISLABELLED), (WHOLE, RemovalKind.RANDOM))
"""All images: run where it is asked for by name, as one training takes ten minutes."""

DIGITS = Problem("digits", Data.DIGITS, Model.SMALL_CNN, Recipe(Optimiser.SGD, 0.1, 32, 40, 5e-4, 5), 300, 20, 5)
QUICK_GRID = ((DIGITS, RemovalKind.MISLABELLED), (DIGITS, RemovalKind.BACKDOOR))


def digest(settings: object) -> str:
    """Sixteen hexadecimal digits of SHA-256 over the settings as sorted JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def available(problem: Problem, folder: Path) -> bool:
    return problem.data not in FILES or (folder / FILES[problem.data]).is_file()


@dataclass(frozen=True)
class Bench:
    """A problem with its samples.

    train: that removals are made from; held_out: V, never trained on; test: that figures are reported on. owner: (n,)
    int64, whose a training sample is; None where they have no owner. perturbation: makes copies for L-FOCI.
    """

    problem: Problem
    train: Samples
    held_out: Samples
    test: Samples
    classes: int
    owner: Tensor | None
    perturbation: Perturbation
    factory: Callable[[], nn.Module]

    def build(self, seed: int) -> nn.Module:
        """An untrained network."""
        return build_seeded(self.factory, seed)

    def objective(self, module: nn.Module) -> Objective:
        return Objective(module, cross_entropy, self.problem.recipe.l2, dtype=torch.float32)


@cache
def bench(problem: Problem, folder: Path) -> Bench:
    """The problem's samples: V from training samples that are spared, else from the test set, whose others are kept."""
    data = load(problem.data, folder, problem.samples)
    train, test, spare = data.train, data.test, data.spare
    if problem.data is Data.FASHION:
        train, test, spare = halved(train), halved(test), halved(_first(spare, HELD_OUT))
    if len(spare) < HELD_OUT // 2:
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
        half = min(HELD_OUT, len(test) // 2)
        spare, test = test.select(order[:half]), test.select(order[half:].sort().values)
    network = _network(problem, data, train)
    held_out, test = _first(spare, HELD_OUT), _first(test, TEST)
    return Bench(problem, train, held_out, test, data.classes, data.owner, data.perturbation(), network)


Batch = Callable[[nn.Module, Tensor], Tensor]
"""(module, positions (b,) of the samples) -> the loss of a batch, a scalar."""


def train(module: nn.Module, samples: Samples, recipe: Recipe, *, seed: int, loss: Batch | None = None) -> nn.Module:
    """Train `module`, in place, by the recipe.

    Args:
        loss: Of a batch, cross-entropy on its samples by default.
        seed: Of the batches' order, and of dropout.
    """
    own = loss or _cross_entropy(samples)
    options: dict[str, float] = {"lr": recipe.peak_rate, "weight_decay": recipe.l2}
    optimiser: torch.optim.Optimizer
    if recipe.optimiser is Optimiser.SGD:
        optimiser = torch.optim.SGD(module.parameters(), momentum=recipe.momentum, **options)
    else:
        optimiser = torch.optim.Adam(module.parameters(), **options)
    steps = recipe.epochs * math.ceil(len(samples) / recipe.batch_size)
    rising = min(recipe.warm_up, steps // 2)
    generator = torch.Generator().manual_seed(seed)
    step = 0
    module.train()
    with seeded(seed):
        for _ in range(recipe.epochs):
            for chosen in torch.randperm(len(samples), generator=generator).split(recipe.batch_size):
                factor = (step + 1) / rising if step < rising else cosine(step - rising, steps - rising)
                optimiser.param_groups[0]["lr"] = recipe.peak_rate * factor
                optimiser.zero_grad()
                own(module, chosen).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                step += 1
    return module.eval()


def _cross_entropy(samples: Samples) -> Batch:
    def loss(module: nn.Module, chosen: Tensor) -> Tensor:
        batch = samples.select(chosen)
        return functional.cross_entropy(module(batch.inputs), batch.labels)

    return loss


def _first(samples: Samples, count: int) -> Samples:
    return samples.select(torch.arange(min(count, len(samples))))


def halved(samples: Samples) -> Samples:
    """Images averaged over 2 x 2 pixels."""
    return Samples(functional.avg_pool2d(samples.inputs, 2), samples.labels) if len(samples) else samples


def _network(problem: Problem, data: DataSet, train: Samples) -> Callable[[], nn.Module]:
    shape = train.inputs.shape[1:]
    match problem.model:
        case Model.CNN:
            return lambda: _cnn(*shape, data.classes)
        case Model.SMALL_CNN:
            channels, height, width = shape
            return lambda: small_cnn(height, width, channels, data.classes, 2)
        case Model.RESNET:
            channels, height, width = shape
            return lambda: small_resnet(height, width, channels, data.classes, 2)
        case Model.ENCODER:
            vocabulary = data.vocabulary
            assert vocabulary is not None
            return lambda: text_encoder(vocabulary.size, shape[0], data.classes, width=32, padding=PADDING)


def _cnn(channels: int, height: int, width: int, classes: int) -> nn.Module:
    """91 thousand parameters on grey images of 14 x 14: enough to learn 5,000 of them by heart."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(64 * (height // 4) * (width // 4), 122, bias=False), nn.BatchNorm1d(122), nn.ReLU()),
        nn.Linear(122, classes),
    )
