"""Networks and samples that the curvatures are tested on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from oubli.components.model.losses import Loss, cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded


class Tokens(nn.Module):
    """Embedding, one attention layer, normalisation, mean over tokens, linear: a text classifier in small."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, padding_idx=0)
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(tokens)).mean(1))


class Recurrent(nn.Module):
    """An LSTM, for which vmap has no rule, and a linear layer on its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 2, batch_first=True)
        self.head = nn.Linear(2, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cell(inputs)[0][:, -1])


def labels_for(loss: Loss | None, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if loss is Loss.CROSS_ENTROPY:
        return torch.randint(0, 3, (count,), generator=generator)
    if loss is Loss.BCE_WITH_LOGITS:
        return torch.randint(0, 2, (count, 3), generator=generator)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64)


@pytest.fixture
def token_objective() -> Objective:
    return Objective(build_seeded(Tokens, 3), cross_entropy, 0.0)


@pytest.fixture
def tokens() -> Samples:
    """8 samples of 5 tokens, some padding and some twice in one sample."""
    inputs = torch.randint(0, 7, (8, 5), generator=torch.Generator().manual_seed(4))
    return Samples(inputs, labels_for(Loss.CROSS_ENTROPY, 8))


@pytest.fixture
def recurrent_objective() -> Objective:
    return Objective(build_seeded(Recurrent, 3), cross_entropy, 0.0)


@pytest.fixture
def sequences() -> Samples:
    """6 samples of 4 steps of 3 features."""
    inputs = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return Samples(inputs, labels_for(Loss.CROSS_ENTROPY, 6))
