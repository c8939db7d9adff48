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
    """One model on one set of samples.

    Attributes:
        n: number of samples.
        loss: their mean loss, without the l2 term.
        accuracy: the share predicted correctly; None where the loss has no such notion.
    """

    n: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Figures:
    """One model on each of n samples, float64 on the CPU.

    Attributes:
        losses: (n,).
        correct: (n,) how right each prediction is, 0 to 1; None where the loss has no such notion.
    """

    losses: Tensor
    correct: Tensor | None

    @property
    def mean(self) -> Evaluation:
        """Over all samples; without any, of no meaning."""
        accuracy = None if self.correct is None else float(self.correct.mean())
        return Evaluation(len(self.losses), float(self.losses.mean()), accuracy)

    def select(self, chosen: Tensor) -> Figures:
        """Of some samples.

        Args:
            chosen: (n,) bool, or indices.
        """
        return Figures(self.losses[chosen], None if self.correct is None else self.correct[chosen])


def evaluate(objective: Objective, theta: Tensor, source: SampleSource) -> Evaluation:
    """Mean loss and accuracy over a source, in one pass.

    Args:
        objective: the module and its loss.
        theta: (d,) weights to evaluate.
        source: at least one sample.

    Raises:
        ConfigurationError: the source is empty.
    """
    return figures(objective, theta, source).mean


def figures(objective: Objective, theta: Tensor, source: SampleSource) -> Figures:
    """The loss, and whether the prediction is right, of each sample of a source, in one pass.

    Args:
        objective: the module and its loss.
        theta: (d,) weights to evaluate.
        source: at least one sample.

    Raises:
        ConfigurationError: the source is empty.
    """
    losses, correct = [], []
    parameters = objective.space.unflatten(theta)
    with torch.no_grad():
        for batch in source.batches(pass_chunk(objective, source)):
            samples = objective.prepare(batch)
            outputs = objective.outputs(parameters, samples.inputs)
            losses.append(objective.loss(outputs, samples.labels).to("cpu", torch.float64))
            predicted = correct_predictions(objective.kind, outputs, samples.labels)
            if predicted is not None:
                correct.append(predicted.to("cpu", torch.float64))
    return Figures(torch.cat(losses), torch.cat(correct) if correct else None)


def retained_gradient_norm(objective: Objective, theta: Tensor, retained: SampleSource) -> float:
    """||grad F_R(theta)||, over all d parameters: 0 for a model that was trained to the end on R (Guo et al. 2020).

    Args:
        objective: F of the module.
        theta: (d,) weights.
        retained: R, at least one sample.

    Raises:
        ConfigurationError: the source is empty.
    """
    return float(objective_gradient(objective, theta, retained).norm())


Model = tuple[Objective, Tensor]
"""A module with its buffers, and its weights theta (d,)."""


def prediction_divergence(first: Model, second: Model, source: SampleSource) -> float | None:
    """Mean Jensen-Shannon divergence of two models' predictions over a source.

    Symmetric, and finite also where one model rules a class out.

    Args:
        first: one model; its chunk size and dtype serve both.
        second: the other, with the same inputs and classes.
        source: at least one sample.

    Returns:
        The divergence in nats, 0 to ln 2; None for losses without a predictive distribution.
    """
    total = 0.0
    models = [(objective, objective.space.unflatten(theta)) for objective, theta in (first, second)]
    with torch.no_grad():
        for batch in source.batches(pass_chunk(first[0], source)):
            inputs = first[0].prepare(batch).inputs
            p, q = (
                log_probabilities(objective.kind, objective.outputs(weights, inputs)) for objective, weights in models
            )
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
    as doing nothing.

    Args:
        first: (d,) weights.
        second: (d,) weights.
        relative_to: (d,) weights whose distance from `second` is the unit; None for the plain distance.

    Returns:
        The distance; infinite where `relative_to` and `second` coincide but `first` does not.
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
    """ToW = (1 - |dForget|)(1 - |dRetained|)(1 - |dTest|) (Zhao et al., NeurIPS 2024).

    Each d is the difference of the updated model's accuracy from the retrained model's.

    Returns:
        1 where all three accuracies are those of retraining, 0 where one is as far off as can be; None where the loss
        has no accuracy.
    """
    product = 1.0
    for reached, wanted in (
        (updated.forget, retrained.forget),
        (updated.retained, retrained.retained),
        (updated.test, retrained.test),
    ):
        if reached.accuracy is None or wanted.accuracy is None:
            return None
        product *= 1 - abs(reached.accuracy - wanted.accuracy)
    return product
