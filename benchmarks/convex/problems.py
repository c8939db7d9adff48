"""Linear classifiers with cross-entropy, from 650 to 76,900 parameters.

Axes: n samples, I features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import torch
from torch import nn

from benchmarks.unlearning.data import PADDING, Data, DataSet, load
from benchmarks.unlearning.problems import halved
from oubli.components.model.frozen_head import frozen_head
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.reference.models import cnn_batchnorm
from oubli.components.reference.text_models import text_encoder
from oubli.components.reference.training import fit_minibatch

L2 = 1e-3

BACKBONE_SAMPLES = 5000
"""That a backbone is trained on: spare ones, or the training samples where there are none."""

SIZES = (1, 10, 100, 1000)
"""Removed samples; half a class beside them."""


class Name(StrEnum):
    """The problems."""

    DIGITS = "digits, logistic regression"
    FASHION = "Fashion-MNIST, logistic regression, all images"
    CNN_HEAD = "Fashion-MNIST, head on a frozen CNN"
    TEXT_HEAD = "BANKING77, head on a frozen text encoder"
    LARGE_HEAD = "synthetic, head of 100 classes on 768 features"


@dataclass(frozen=True)
class Convex:
    """One problem: features (n, I) float32, labels (n,), and F."""

    name: Name
    samples: Samples
    objective: Objective

    def removals(self) -> dict[str, torch.Tensor]:
        """Positions of the samples of each removal set, by its name."""
        order = torch.randperm(len(self.samples), generator=torch.Generator().manual_seed(1))
        sets = {f"m = {m}": order[:m] for m in SIZES if m <= len(order) // 2}
        label = int(self.samples.labels[order[0]])
        members = order[self.samples.labels[order] == label]
        return sets | {"half a class": members[: len(members) // 2]}


def problem(name: Name, folder: Path) -> Convex:
    """The samples of a problem; a head's features are computed."""
    match name:
        case Name.DIGITS:
            return _convex(name, load(Data.DIGITS, folder).train, 10)
        case Name.FASHION:
            return _convex(name, load(Data.FASHION, folder, None).train, 10)
        case Name.CNN_HEAD:
            images = load(Data.FASHION, folder, 50_000)
            small = replace(images, train=halved(images.train), spare=halved(images.spare))
            return _convex(name, features(small, _cnn(small), l2=1e-2, epochs=8), 10)
        case Name.TEXT_HEAD:
            texts = load(Data.BANKING, folder)
            return _convex(name, features(texts, _encoder(texts), l2=1e-3, epochs=16), 77)
        case Name.LARGE_HEAD:
            return _convex(name, _synthetic(200_000, 768, 100), 100)


def features(data: DataSet, network: nn.Module, *, l2: float, epochs: int) -> Samples:
    """The training samples as the features (n, I) of a network's head, which is trained here but for the head."""
    own = data.spare.select(torch.arange(min(BACKBONE_SAMPLES, len(data.spare)))) if len(data.spare) else data.train
    fit_minibatch(network, own, loss=cross_entropy, l2=l2, seed=0, epochs=epochs, batch_size=128, learning_rate=5e-3)
    head = frozen_head(Objective(network, cross_entropy, l2, trained=("head",)), data.train)
    assert head is not None
    found = head.features(data.train)
    assert isinstance(found, Samples)
    return found


def _cnn(data: DataSet) -> nn.Module:
    channels, height, width = data.train.inputs.shape[1:]
    return build_seeded(lambda: cnn_batchnorm(height, width, channels, data.classes), 0)


def _encoder(data: DataSet) -> nn.Module:
    vocabulary = data.vocabulary
    assert vocabulary is not None
    length = data.train.inputs.shape[1]
    return build_seeded(lambda: text_encoder(vocabulary.size, length, data.classes, width=32, padding=PADDING), 0)


def _convex(name: Name, samples: Samples, classes: int) -> Convex:
    narrow = Samples(samples.inputs.flatten(1).to(torch.float32), samples.labels)
    module = nn.Linear(narrow.inputs.shape[1], classes).double()
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return Convex(name, narrow, Objective(module, cross_entropy, L2))


def _synthetic(n: int, width: int, classes: int) -> Samples:
    """Features as a normalised layer gives them: a mean for each class, a spectrum that falls as 1 / j, the norm of
    sqrt(I) on average. One label in ten is another's."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(classes, width, generator=generator) / 2
    spectrum = torch.arange(1, width + 1).rsqrt()
    own = torch.randint(0, classes, (n,), generator=generator)
    inputs = torch.randn(n, width, generator=generator)
    for part, label in zip(inputs.split(10_000), own.split(10_000), strict=True):
        part.add_(means[label]).mul_(spectrum)
    inputs *= width**0.5 / inputs.norm(dim=1).mean()
    other = torch.rand(n, generator=generator) < 0.1
    return replace(
        Samples(inputs, own), labels=torch.where(other, torch.randint(0, classes, (n,), generator=generator), own)
    )
