"""A model of one's own: its factory and its training, as a training record names them ("wine_model:build")."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from oubli.components.model.samples import Samples


class Wine(nn.Module):
    """Thirteen measurements of a wine to one of three growers, through a residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(13, width)
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.leave = nn.Linear(width, 3)

    def forward(self, measurements: Tensor) -> Tensor:
        hidden = torch.tanh(self.enter(measurements))
        return self.leave(hidden + self.block(hidden))


def build(width: int) -> nn.Module:
    return Wine(width)


def fit(
    module: nn.Module,
    samples: Samples,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    l2: float,
    seed: int,  # noqa: ARG001 - full batches: nothing here is random
    epochs: int,
    on_progress: Callable[[float], None] | None = None,
) -> nn.Module:
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    for epoch in range(epochs):
        optimiser.zero_grad()
        norm = sum(parameter.square().sum() for parameter in module.parameters())
        (loss(module(samples.inputs), samples.labels).mean() + l2 / 2 * norm).backward()
        optimiser.step()
        if on_progress is not None:
            on_progress((epoch + 1) / epochs)
    return module
