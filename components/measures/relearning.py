"""How soon a model learns the removed samples again.

Axes: m removed samples, b samples of a batch, d parameters.

What was forgotten takes as long to learn as what was never seen; what was only hidden comes back at once. So the figure
is read beside that of a retrained model, from the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.measures.evaluation import evaluate
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples


@dataclass(frozen=True)
class Relearning:
    """How relearning went.

    Attributes:
        epochs: passes over the removed samples until their mean loss was at the goal or below; 0 where it was there at
            the start, None where it never got there.
        losses: the mean loss at the start and after each epoch.
        steps: optimiser steps in all.
    """

    epochs: int | None
    losses: tuple[float, ...]
    steps: int


def relearn(
    objective: Objective,
    theta: Tensor,
    removed: Samples,
    *,
    goal: float,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    max_epochs: int = 100,
    seed: int,
) -> Relearning:
    """Train on the removed samples alone until their mean loss is what it was before the removal.

    Adam (Kingma and Ba 2015, with its own defaults) on the loss without the l2 term, over the trained parameters, in
    evaluation mode; the batches' order is drawn anew each epoch.

    Args:
        objective: the module and its loss.
        theta: (d,) weights to start from; not changed.
        removed: m samples, at least one.
        goal: the mean loss to reach: the original model's.
        learning_rate: Adam's.
        batch_size: samples of a step.
        max_epochs: when to give up.
        seed: of the batches' order.

    Raises:
        ConfigurationError: the set is empty, or the learning rate, batch size or number of epochs is not positive.
        NonFiniteInput: the weights are not finite.
    """
    if not learning_rate > 0 or batch_size < 1 or max_epochs < 1 or len(removed) == 0:
        raise ConfigurationError(
            f"learning_rate {learning_rate}, batch_size {batch_size}, max_epochs {max_epochs} and {len(removed)} "
            "samples; all must be positive.",
            remedy="Pass at least one sample, and leave the others out for their defaults.",
        )
    objective.check(theta)
    prepared = objective.prepare(removed)
    weights = theta.clone()
    optimiser = torch.optim.Adam([weights], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    losses, steps = [evaluate(objective, weights, prepared).loss], 0
    while losses[-1] > goal and len(losses) <= max_epochs:
        order = torch.randperm(len(prepared), generator=generator)
        for chosen in torch.split(order, batch_size):
            batch = prepared.select(chosen.to(prepared.inputs.device))
            weights.grad = gradient_sum(objective, weights, batch) / len(batch)
            optimiser.step()
            steps += 1
        losses.append(evaluate(objective, weights, prepared).loss)
    return Relearning(len(losses) - 1 if losses[-1] <= goal else None, tuple(losses), steps)
