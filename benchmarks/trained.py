"""Slice activations of a network of any width, trained on scikit-learn's handwritten digits.

Axes: N perturbed copies, p slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from oubli.components.blocks.activations import record_activations
from oubli.components.blocks.perturbation import SIGMA, gaussian_copies
from oubli.components.blocks.slices import find_slices
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded

CLASSES = 10
BATCH = 64
STEPS = 100


@dataclass(frozen=True)
class Trained:
    """activations: (N, p) float64; losses: (N,) float64."""

    activations: NDArray[np.float64]
    losses: NDArray[np.float64]


class TrainedNetwork:
    """A network of `slices` slices (64 or more), trained for a hundred steps on the digits.

    Two convolutions hold half of the slices, two linear layers and the output the others.
    """

    def __init__(self, slices: int, seed: int = 0) -> None:
        self._images, self._labels = _digits()
        self._module = build_seeded(lambda: _network(slices), seed)
        generator = torch.Generator().manual_seed(seed)
        # Wider layers move further in function for the same step in each weight.
        optimizer = torch.optim.Adam(self._module.parameters(), lr=3e-3 * (256 / slices) ** 0.5)
        for _ in range(STEPS):
            batch = torch.randint(0, len(self._images), (BATCH,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(self._module(self._images[batch]), self._labels[batch]).backward()
            optimizer.step()
        self._objective = Objective(self._module, cross_entropy, 0.0, dtype=torch.float32)

    def accuracy(self) -> float:
        """On the images it was trained on."""
        with torch.no_grad():
            guesses = torch.cat([self._module(images).argmax(1) for images in self._images.split(256)])
        return float((guesses == self._labels).double().mean())

    def record(self, sample: int, copies: int) -> Trained:
        """Slice activations and losses on `copies` noisy copies of one image."""
        generator = torch.Generator().manual_seed(sample)
        inputs = gaussian_copies(self._images[sample], count=copies, sigma=SIGMA, generator=generator)
        labels = self._labels[sample].expand(copies)
        slices = find_slices(self._objective.module)
        record = record_activations(self._objective, self._objective.theta(), slices, Samples(inputs, labels))
        return Trained(record.activations, record.losses)


def _network(slices: int) -> nn.Module:
    first = 16
    wide = slices // 2 - first
    narrow = min(128, slices // 8)
    last = slices - first - wide - narrow - CLASSES
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, wide, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * wide, narrow),
        nn.ReLU(),
        nn.Linear(narrow, last),
        nn.ReLU(),
        nn.Linear(last, CLASSES),
    )


def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797, 1, 8, 8) float32 in 0 to 1, and their (1797,) labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images / 16.0, dtype=torch.float32).unsqueeze(1)
    return images, torch.tensor(data.target)
