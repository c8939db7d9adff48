"""What a model does on a set of samples, and how far apart two models are.

Axes: n samples, b samples of a batch, d parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.model.chunking import pass_chunk
from oubli.components.model.gradients import objective_gradient
from oubli.components.model.losses import correct_predictions, log_probabilities
from oubli.components.model.objective import Objective
from oubli.components.model.samples import SampleSource


@dataclass(frozen=True)
class Evaluation:
    """n samples, their mean loss (no L2 term), and the share predicted right where the loss has such a notion."""

    n: int
    loss: float
    accuracy: float | None


def evaluate(objective: Objective, theta: Tensor, source: SampleSource) -> Evaluation:
    """Mean loss and accuracy of weights `theta` (d,) over a source that is not empty."""
    loss, right, ruled = 0.0, 0.0, True
    parameters = objective.space.unflatten(theta)
    with torch.no_grad():
        for batch in source.batches(pass_chunk(objective, source)):
            samples = objective.prepare(batch)
            outputs = objective.outputs(parameters, samples.inputs)
            loss += float(objective.loss(outputs, samples.labels).sum(dtype=torch.float64))
            correct = correct_predictions(objective.kind, outputs, samples.labels)
            if correct is None:
                ruled = False
            else:
                right += float(correct.sum())
    n = len(source)
    return Evaluation(n, loss / n, right / n if ruled else None)


def retained_gradient_norm(objective: Objective, theta: Tensor, retained: SampleSource) -> float:
    """||grad F_R(theta)||, over all d parameters: 0 for a model that was trained to the end on R (Guo et al. 2020)."""
    return float(objective_gradient(objective, theta, retained).norm())


Model = tuple[Objective, Tensor]
"""A module with its buffers, and its weights theta (d,)."""


def prediction_divergence(first: Model, second: Model, source: SampleSource) -> float | None:
    """Mean Jensen-Shannon divergence of two models' predictions over a source, in nats, 0 to ln 2.

    Symmetric, and finite also where one model rules a class out. None for losses without predictive distribution.
    """
    total = 0.0
    models = [(objective, objective.space.unflatten(theta)) for objective, theta in (first, second)]
    with torch.no_grad():
        for batch in source.batches(pass_chunk(first[0], source)):
            inputs = first[0].prepare(batch).inputs
            p, q = (log_probabilities(one.kind, one.outputs(weights, inputs)) for one, weights in models)
            if p is None or q is None:
                return None
            p, q = p.to(torch.float64), q.to(torch.float64)
            middle = torch.logaddexp(p, q) - math.log(2)
            terms = (p.exp() * (p - middle) + q.exp() * (q - middle)) / 2
            # A probability that underflows to 0 contributes nothing, whatever its logarithm.
            per_sample = terms.nan_to_num(0.0).sum(1).reshape(len(inputs), -1).mean(1)
            total += float(per_sample.sum())
    return max(0.0, total / len(source))


def parameter_distance(first: Tensor, second: Tensor, *, relative_to: Tensor | None = None) -> float:
    """||first - second||, or ||first - second|| / ||relative_to - second||.

    With the updated, the retrained and the original weights in this order: 0 is as good as retraining, 1 is as good
    as doing nothing. Infinite where the original and the retrained model coincide but the updated does not.
    """
    distance = float((first - second).norm())
    if relative_to is None:
        return distance
    scale = float((relative_to - second).norm())
    if scale == 0:
        return 0.0 if distance == 0 else float("inf")
    return distance / scale


@dataclass(frozen=True)
class ThreeSets:
    """One model on the removed, the retained and the test samples."""

    forget: Evaluation
    retained: Evaluation
    test: Evaluation


def tug_of_war(updated: ThreeSets, retrained: ThreeSets) -> float | None:
    """ToW = (1 - |dForget|)(1 - |dRetained|)(1 - |dTest|), d being differences of accuracy from the retrained model.

    1 where all three are those of retraining, 0 where one is as far as can be (Zhao et al., NeurIPS 2024). None where
    the loss has no accuracy.
    """
    found = 1.0
    for one, other in (
        (updated.forget, retrained.forget),
        (updated.retained, retrained.retained),
        (updated.test, retrained.test),
    ):
        if one.accuracy is None or other.accuracy is None:
            return None
        found *= 1 - abs(one.accuracy - other.accuracy)
    return found
