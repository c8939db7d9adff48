"""What is removed from: a data set and a model, and how the model is trained.

Axes: n samples, H height, W width, T tokens.

The images of networks are averaged over 2 x 2 pixels where `shrink` says so: a training then takes seconds, and a
removal set can be retrained without several times. A `head` problem is a linear head on a frozen backbone, which was
trained on the data set's spare samples; its samples are the backbone's features.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.unlearning.data import PADDING, Data, DataSet, load
from oubli.components.model.frozen_head import frozen_head
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.reference.models import cnn_batchnorm, logistic_regression, small_resnet
from oubli.components.reference.text_models import text_encoder
from oubli.components.reference.training import fit_convex, fit_minibatch


class Model(StrEnum):
    """The models."""

    LOGISTIC = "logistic_regression"
    CNN = "cnn"
    RESNET = "resnet"
    ENCODER = "encoder"


@dataclass(frozen=True)
class Training:
    """Options of `fit_minibatch`."""

    epochs: int
    batch_size: int = 128
    learning_rate: float = 5e-3
    settling: int = 0


@dataclass(frozen=True)
class Problem:
    """One column of the grid.

    training: of a network, or of the backbone under a head; None for what is convex as a whole.
    """

    data: Data
    model: Model
    l2: float
    training: Training | None = None
    head: bool = False
    shrink: bool = False
    width: int = 1
    subset: int = 5000
    backbone_samples: int = 5000

    @property
    def name(self) -> str:
        return f"{self.data.value}-{self.model.value}{'_head' if self.head else ''}"

    @property
    def convex(self) -> bool:
        return self.head or self.training is None

    @property
    def dtype(self) -> torch.dtype:
        """Convex models are held to their minimiser in float64; networks are trained and used in float32."""
        return torch.float64 if self.convex else torch.float32

    def digest(self) -> str:
        """Of every setting."""
        return digest(dataclasses.asdict(self))


CONVEX = (
    Problem(Data.DIGITS, Model.LOGISTIC, 1e-3),
    Problem(Data.FASHION, Model.LOGISTIC, 1e-2, shrink=True),
    Problem(Data.FASHION, Model.CNN, 1e-2, Training(8), head=True, shrink=True),
    Problem(Data.BANKING, Model.ENCODER, 1e-3, Training(16), head=True),
)

NETWORKS = (
    Problem(Data.FASHION, Model.CNN, 1e-3, Training(20, settling=10), shrink=True),
    Problem(Data.FASHION, Model.RESNET, 1e-3, Training(16, settling=8), shrink=True),
    Problem(Data.CUAD, Model.ENCODER, 5e-4, Training(8, settling=4)),
    Problem(Data.BANKING, Model.ENCODER, 5e-4, Training(16, settling=4)),
)

QUICK = (
    Problem(Data.DIGITS, Model.LOGISTIC, 1e-3),
    Problem(Data.SYNTHETIC_TEXT, Model.ENCODER, 1e-3, Training(6), head=True, backbone_samples=0),
    Problem(Data.DIGITS, Model.CNN, 1e-3, Training(6, settling=2), subset=400),
    Problem(Data.SYNTHETIC_TEXT, Model.ENCODER, 1e-3, Training(6, settling=2), subset=300),
)


def digest(settings: object) -> str:
    """Sixteen hexadecimal digits of SHA-256 over the settings as sorted JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Bench:
    """A problem with its samples, ready to be trained on.

    data: the samples as the trained part takes them. pristine: the trained part, untrained, for copies.
    """

    problem: Problem
    data: DataSet
    _head: nn.Module | None = field(default=None, repr=False)

    def build(self, seed: int) -> nn.Module:
        """An untrained module; a head starts where every convex model may."""
        if self._head is not None:
            return copy.deepcopy(self._head)
        return build_seeded(lambda: _network(self.problem, self.data), seed).to(self.problem.dtype)

    def train(self, module: nn.Module, samples: Samples, seed: int) -> nn.Module:
        """`module`, trained on `samples`."""
        problem = self.problem
        if problem.convex:
            return fit_convex(module, samples, loss=cross_entropy, l2=problem.l2, tolerance=CONVEX_TOLERANCE)
        assert problem.training is not None
        options = dataclasses.asdict(problem.training)
        return fit_minibatch(module, samples, loss=cross_entropy, l2=problem.l2, seed=seed, **options)

    def objective(self, module: nn.Module) -> Objective:
        return Objective(module, cross_entropy, self.problem.l2, dtype=self.problem.dtype)


CONVEX_TOLERANCE = 1e-8
"""||grad F|| of a convex reference: a hundredth of what the bar on the distance can see."""


@cache
def bench(problem: Problem, folder: Path) -> Bench:
    """The problem's samples; for a head, its backbone is trained and its features are computed."""
    data = load(problem.data, folder, problem.subset)
    if problem.shrink:
        data = dataclasses.replace(
            data,
            train=_halved(data.train),
            test=_halved(data.test),
            spare=_halved(data.spare, problem.backbone_samples),
        )
    return _with_frozen_backbone(problem, data) if problem.head else Bench(problem, data)


def _with_frozen_backbone(problem: Problem, data: DataSet) -> Bench:
    assert problem.training is not None
    backbone_data = data.spare.select(torch.arange(min(problem.backbone_samples, len(data.spare))))
    if len(backbone_data) == 0:
        backbone_data = data.train
    module = fit_minibatch(
        build_seeded(lambda: _network(problem, data), 0),
        backbone_data,
        loss=cross_entropy,
        l2=problem.l2,
        seed=0,
        **dataclasses.asdict(problem.training),
    )
    for parameter in module.get_submodule("head").parameters():
        nn.init.zeros_(parameter)
    whole = Objective(module, cross_entropy, problem.l2, dtype=problem.dtype, trained=("head",))
    head = frozen_head(whole, data.train)
    assert head is not None
    assert head.linear
    train, test = head.features(data.train), head.features(data.test)
    assert isinstance(train, Samples)
    assert isinstance(test, Samples)
    # The vocabulary is of the tokens that are gone: features are continuous.
    features = dataclasses.replace(data, train=train, test=test, spare=train.select(torch.arange(0)), vocabulary=None)
    return Bench(problem, features, head.objective.module)


def _halved(samples: Samples, count: int | None = None) -> Samples:
    chosen = samples if count is None else samples.select(torch.arange(min(count, len(samples))))
    if len(chosen) == 0:
        return chosen
    return Samples(functional.avg_pool2d(chosen.inputs, 2), chosen.labels)


def _network(problem: Problem, data: DataSet) -> nn.Module:
    shape = data.train.inputs.shape[1:]
    match problem.model:
        case Model.LOGISTIC:
            return logistic_regression(shape.numel(), data.classes)
        case Model.CNN:
            channels, height, width = shape
            return cnn_batchnorm(height, width, channels, data.classes, problem.width)
        case Model.RESNET:
            channels, height, width = shape
            return small_resnet(height, width, channels, data.classes, problem.width)
        case Model.ENCODER:
            assert data.vocabulary is not None
            return text_encoder(data.vocabulary.size, shape[0], data.classes, width=32 * problem.width, padding=PADDING)
