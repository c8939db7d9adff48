"""A network with a normalisation layer, from outside Oubli, as a user's would be."""

from __future__ import annotations

from torch import nn


def build(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 3))


def build_normalised(features: int, width: int) -> nn.Module:
    """With batch normalisation, whose statistics move with the weights."""
    return nn.Sequential(nn.Linear(features, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))
