"""Slow dense curvatures, by their definitions: sample by sample, by reverse mode alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples


def dense_hessian(objective: Objective, samples: Samples) -> Tensor:
    """d^2 mean loss / d theta^2, (d, d)."""
    with sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.functional.hessian(
            lambda theta: objective.losses(theta, samples).mean(), objective.theta()
        )


def output_jacobian(objective: Objective, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """One sample's outputs, flat, and their Jacobian (C, d)."""
    theta = objective.theta().requires_grad_()
    outputs = objective.outputs(objective.space.unflatten(theta), inputs[None])[0].reshape(-1)
    rows = [torch.autograd.grad(one, theta, retain_graph=True)[0] for one in outputs]
    return outputs.detach(), torch.stack(rows)


def output_hessian(objective: Objective, outputs: Tensor, shape: torch.Size, label: Tensor) -> Tensor:
    """The loss's Hessian in one sample's outputs, (C, C)."""
    return torch.autograd.functional.hessian(lambda at: objective.loss(at.reshape(1, *shape), label[None])[0], outputs)


def dense_gauss_newton(objective: Objective, samples: Samples) -> Tensor:
    """(1/n) sum_i J_i^T B_i J_i, (d, d)."""
    total = 0
    for inputs, label in zip(samples.inputs, samples.labels, strict=True):
        shape = objective.outputs({}, inputs[None]).shape[1:]
        outputs, jacobian = output_jacobian(objective, inputs)
        total = total + jacobian.T @ output_hessian(objective, outputs, shape, label) @ jacobian
    return total / len(samples)


def sample_gradients(objective: Objective, samples: Samples) -> Tensor:
    """(n, d), one backward pass each."""
    rows = []
    for inputs, label in zip(samples.inputs, samples.labels, strict=True):
        theta = objective.theta().requires_grad_()
        loss = objective.losses(theta, Samples(inputs[None], label[None]))[0]
        rows.append(torch.autograd.grad(loss, theta)[0])
    return torch.stack(rows)
