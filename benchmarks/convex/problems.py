"""Linear classifiers with cross-entropy, from 650 to 76,900 parameters.

Axes: n samples, I features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import torch
from torch import nn

from benchmarks.unlearning.data import Data, load
from benchmarks.unlearning.problems import Model as Network
from benchmarks.unlearning.problems import Problem, Training, bench
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples

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
            return _convex(name, load(Data.DIGITS, folder).train, 10, 1e-3)
        case Name.FASHION:
            return _convex(name, load(Data.FASHION, folder, None).train, 10, 1e-3)
        case Name.CNN_HEAD:
            settings = Problem(Data.FASHION, Network.CNN, 1e-2, Training(8), head=True, shrink=True, subset=50_000)
            return _convex(name, bench(settings, folder).data.train, 10, 1e-3)
        case Name.TEXT_HEAD:
            settings = Problem(Data.BANKING, Network.ENCODER, 1e-3, Training(16), head=True)
            return _convex(name, bench(settings, folder).data.train, 77, 1e-3)
        case Name.LARGE_HEAD:
            return _convex(name, _synthetic(200_000, 768, 100), 100, 1e-3)


def _convex(name: Name, samples: Samples, classes: int, l2: float) -> Convex:
    features = Samples(samples.inputs.flatten(1).to(torch.float32), samples.labels)
    module = nn.Linear(features.inputs.shape[1], classes).double()
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return Convex(name, features, Objective(module, cross_entropy, l2))


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
