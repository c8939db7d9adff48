"""A function of one sample, over all samples of a batch.

Axes: b samples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from oubli.components.model.objective import Objective

_log = logging.getLogger(__name__)

OfSample = Callable[..., Tensor]
"""(tensors of one sample) -> tensor."""


@dataclass
class SampleMap:
    """`batched` under `torch.func.vmap`; `single`, one sample at a time, where an operation has no rule for it.

    Recurrent cells have none. Once vmap has refused, it is not asked again.

    Attributes:
        batched: The function of one sample.
        single: The same function, made so that it uses no vmap inside either; None takes `batched`.
        refused: Whether vmap has refused.
    """

    batched: OfSample
    single: OfSample | None = None
    refused: bool = field(default=False, init=False)

    def __call__(self, *arguments: Tensor) -> Tensor:
        """The function of each sample.

        Args:
            *arguments: (b, ...) each, one row a sample.

        Returns:
            (b, ...), detached.
        """
        if not self.refused:
            try:
                return vmap(self.batched)(*arguments).detach()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                # What vmap lacks a rule for has no exception of its own. Any other error comes again below.
                self.refused = True
                _log.info("One sample at a time, which is slower: %s", str(error).partition("\n")[0])
        one_by_one = self.single or self.batched
        return torch.stack([one_by_one(*sample).detach() for sample in zip(*arguments, strict=True)])


def loss_hessians(objective: Objective, shape: torch.Size) -> SampleMap:
    """The Hessian of each sample's loss in its outputs: a map from outputs (b, K) and labels (b, ...) to B (b, K, K).

    Args:
        objective: The model and its loss.
        shape: Of one sample's outputs, K elements.
    """

    def loss(at: Tensor, label: Tensor) -> Tensor:
        return objective.loss(at.reshape(1, *shape), label[None])[0]

    # Chunks of one: without vmap over the rows, for losses that have no rule for it.
    return SampleMap(jacrev(jacrev(loss)), jacrev(jacrev(loss, chunk_size=1), chunk_size=1))
