"""How far a step leads beyond where the model is linear in its weights, which every Newton step takes it to be.

Axes: k held-out samples, d trained parameters.

A step x from theta is predicted to change the outputs f by J x, J being their Jacobian at theta. On held-out samples,
which neither the gradient nor the curvature was made of,

    ||f(theta + x) - f(theta) - J x|| / ||J x||

is 0 where that holds, and near 1 where the step says nothing of where it leads. Unlike the norm of the retained
gradient, it does not depend on how well the model was trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.func import vjp

from oubli.components.model.attention import differentiable_attention
from oubli.components.model.chunking import pass_chunk
from oubli.components.model.objective import Objective
from oubli.components.model.samples import SampleSource

PREDICTION_ERROR = 0.5
"""The largest error of a step that is taken: half of what was predicted."""


def prediction_error(objective: Objective, theta: Tensor, reached: Tensor, held_out: SampleSource) -> float:
    """||f(reached) - f(theta) - J (reached - theta)|| / ||J (reached - theta)||, over all samples and outputs.

    Args:
        objective: The model.
        theta: (d,) weights before the step.
        reached: (d,) weights after it.
        held_out: k samples, at least one; their labels are not used.

    Returns:
        The error; 0 where nothing changes and nothing was predicted to, infinite where an output is not finite.
    """
    step = reached - theta
    missed = predicted = 0.0

    def outputs(weights: Tensor, inputs: Tensor) -> Tensor:
        return objective.outputs(objective.space.unflatten(weights), inputs)

    for batch in held_out.batches(pass_chunk(objective, held_out)):
        inputs = objective.prepare(batch).inputs
        with differentiable_attention():
            # J x as the derivative of u -> J^T u: forward mode needs rules that more layers lack.
            before, pull_back = vjp(lambda weights, at=inputs: outputs(weights, at), theta)[:2]
            push_forward = vjp(lambda weights, pull=pull_back: pull(weights)[0], torch.zeros_like(before))[1]
            change = push_forward(step)[0].detach()
            beyond = outputs(reached, inputs).detach() - before.detach() - change
        missed += float(beyond.square().sum(dtype=torch.float64))
        predicted += float(change.square().sum(dtype=torch.float64))
    if not math.isfinite(missed) or not math.isfinite(predicted):
        return math.inf
    if predicted == 0:
        return 0.0 if missed == 0 else math.inf
    return math.sqrt(missed / predicted)
