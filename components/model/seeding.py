"""Initialisations and draws that leave the global random state as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs the body with torch's global generators at `seed`, and puts them back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def build_seeded(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A module whose initialisation is drawn from a seed; the global random state is as before.

    Args:
        factory: Builds the module.
        seed: Of torch's generators while it does.
    """
    with seeded(seed):
        return factory()
