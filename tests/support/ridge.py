"""Parts of a sample set, and least squares, whose minimiser is known."""

from __future__ import annotations

import torch
from torch import Tensor

from oubli.components.model.samples import Samples

L2 = 1e-2


def split(samples: Samples, m: int) -> tuple[Samples, Samples]:
    """Retained and removed."""
    return samples.select(torch.arange(m, len(samples))), samples.select(torch.arange(m))


def least_squares(samples: Samples) -> Tensor:
    """The exact minimiser for mse averaged over 2 targets: each target's ridge regression, bias penalised too."""
    X = torch.cat([samples.inputs, torch.ones(len(samples), 1, dtype=torch.float64)], 1)
    # F = (1/(2n)) ||XW - Y||^2 + (l2/2) ||W||^2
    W = torch.linalg.solve(X.T @ X / len(X) + L2 * torch.eye(X.shape[1], dtype=X.dtype), X.T @ samples.labels / len(X))
    return torch.cat([W[:-1].T.reshape(-1), W[-1]])
