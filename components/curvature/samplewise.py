"""A function of one sample, over all samples of a batch.

Axes: b samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import vmap

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
            except RuntimeError:
                # What vmap lacks a rule for has no exception of its own. Any other error comes again below.
                self.refused = True
        one_by_one = self.single or self.batched
        return torch.stack([one_by_one(*sample).detach() for sample in zip(*arguments, strict=True)])
