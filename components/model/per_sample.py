"""Whether model and loss have a per-sample form, as F needs one: a sample's loss depends on that sample alone.

A contrastive loss compares the samples of a batch, and a module may normalise by the batch that it is given. Neither
sample then has a gradient of its own that could be taken out, and no figure of one set would say anything of it.

Axes: k samples, a few.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.model.attention import without_fast_path
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples, SampleSource

FEW = 8
"""Samples that the check takes: each twice in its batch, so that a loss of pairs finds one."""


def require_per_sample(objective: Objective, theta: Tensor, source: SampleSource) -> None:
    """Check on a few samples that model and loss treat each by itself: in a batch, and alone.

    Args:
        objective: The model and its loss.
        theta: (d,) weights.
        source: Read no further than its first few samples; an empty one passes.

    Raises:
        ConfigurationError: The model or the loss gives a sample something else in a batch than alone, the loss cannot
            take one sample, or it returns something else than one number per sample.
    """
    if len(source) == 0:
        return
    few = objective.prepare(next(iter(source.batches(FEW))))
    twice = Samples(torch.cat([few.inputs, few.inputs]), torch.cat([few.labels, few.labels]))
    parameters = objective.space.unflatten(theta)
    with torch.no_grad(), without_fast_path():
        together = objective.outputs(parameters, twice.inputs)
        alone = torch.cat([objective.outputs(parameters, one.inputs) for one in twice.batches(1)])
        if not _agree(together, alone):
            raise ConfigurationError(
                f"{type(objective.module).__name__} gives a sample other outputs in a batch than alone.",
                remedy="Let outputs depend on their own sample alone: let batch normalisation keep running statistics.",
            )
        losses = objective.losses(theta, twice)
        singles = [_single(objective, Samples(alone[i : i + 1], twice.labels[i : i + 1])) for i in range(len(twice))]
    if not _agree(losses, torch.cat(singles)):
        raise _not_per_sample(objective, "gives a sample another value in a batch than alone")


def _single(objective: Objective, one: Samples) -> Tensor:
    """The loss (1,) of one sample's outputs."""
    try:
        loss = objective.loss(one.inputs, one.labels)
    except (RuntimeError, ValueError, IndexError) as error:
        raise _not_per_sample(objective, f"cannot take a single sample ({str(error).splitlines()[0]})") from error
    if loss.shape != (1,):
        raise _not_per_sample(objective, f"returns shape {tuple(loss.shape)} for a single sample")
    return loss


def _not_per_sample(objective: Objective, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"The loss {getattr(objective.loss, '__name__', objective.loss)!r} {problem}: it has no per-sample form.",
        remedy="Give a loss of one sample's outputs and label: in place of the batch, compare with fixed class centres "
        "or prototypes that are parameters of the model, and state the number of classes (one_hot(labels, classes)).",
    )


def _agree(first: Tensor, second: Tensor) -> bool:
    """Equal but for what another batch size rounds differently."""
    if first.shape != second.shape:
        return False
    tolerance = torch.finfo(first.dtype).eps ** 0.5
    scale = first.nan_to_num(0.0, 0.0, 0.0).abs().max() if first.numel() else 1.0
    return bool(torch.allclose(first, second, rtol=tolerance, atol=float(tolerance * scale), equal_nan=True))
