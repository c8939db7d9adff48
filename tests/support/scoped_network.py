"""A small network with a backbone and a head, and trainers of the head, as a user's would be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oubli.components.model.losses import LossFunction
from oubli.components.model.samples import Samples


class Scoped(nn.Module):
    """(b, 6) to (b, classes); batch normalisation and dropout in the backbone, which training mode would move."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(width, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.backbone(inputs))


def build(width: int = 5, classes: int = 3) -> nn.Module:
    return Scoped(width, classes)


class Texts(nn.Module):
    """(b, T) token ids to (b, classes): the mean of the embeddings of what is no padding, through one layer."""

    def __init__(self, vocabulary: int, width: int, classes: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.encoder = nn.Sequential(nn.Embedding(vocabulary, width), nn.Linear(width, width), nn.Tanh())
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        attended = (tokens != self.padding).unsqueeze(-1)
        encoded = (self.encoder(tokens) * attended).sum(1) / attended.sum(1)
        return self.head(encoded)


def build_texts(vocabulary: int, width: int, classes: int, padding: int = 0) -> nn.Module:
    return Texts(vocabulary, width, classes, padding)


def fit(
    module: nn.Module,
    samples: Samples,
    *,
    loss: LossFunction,
    l2: float,
    seed: int,
    trained: Sequence[str] | None = None,
    steps: int = 30,
) -> nn.Module:
    """Gradient descent in training mode on whatever takes a gradient."""
    moving = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(moving, lr=0.1)
    module.train()
    for _ in range(steps):
        optimiser.zero_grad()
        penalty = sum(parameter.square().sum() for parameter in moving)
        (loss(module(samples.inputs), samples.labels).mean() + l2 / 2 * penalty).backward()
        optimiser.step()
    return module


def fit_everything(module: nn.Module, samples: Samples, **options: object) -> nn.Module:
    """A trainer that minds no scope."""
    module.requires_grad_(True)
    return fit(module, samples, **options)  # type: ignore[arg-type]
