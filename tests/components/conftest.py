"""Small problems that the tests of the numeric core share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from oubli.components.model.losses import cross_entropy, mse
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded

L2 = 1e-2


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def linear_objective() -> Objective:
    """Linear softmax classifier, 4 features, 3 classes, random weights: d = 15."""
    return Objective(build_seeded(lambda: nn.Linear(4, 3), 1), cross_entropy, L2)


@pytest.fixture
def classes() -> Samples:
    """40 samples of 4 features, 3 classes."""
    labels = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(3))
    return Samples(normal(40, 4, seed=2), labels)


@pytest.fixture
def regression_objective() -> Objective:
    """Linear least squares, 4 features, 2 targets: d = 10."""
    return Objective(build_seeded(lambda: nn.Linear(4, 2), 1), mse, L2)


@pytest.fixture
def targets() -> Samples:
    """40 samples of 4 features, 2 targets."""
    return Samples(normal(40, 4, seed=4), normal(40, 2, seed=5))


@pytest.fixture
def network() -> nn.Module:
    """Convolution, batch normalisation, dropout and a linear layer: what evaluation mode must handle."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(12, 3),
        )

    return build_seeded(build, 7)


@pytest.fixture
def network_objective(network: nn.Module) -> Objective:
    return Objective(network, cross_entropy, L2)


@pytest.fixture
def images() -> Samples:
    """20 images of 4 x 4, 3 classes."""
    labels = torch.randint(0, 3, (20,), generator=torch.Generator().manual_seed(9))
    return Samples(normal(20, 1, 4, 4, seed=8), labels)
