"""Roots of the loss's Hessian in the outputs: vectors whose outer products make it.

Axes: b samples, C outputs of one position, T positions, K = C * T output elements.

For each sample, B = d^2 loss / d outputs^2 (K, K). `exact_roots` gives vectors u_k with sum_k u_k u_k^T = B, and
`sampled_root` one random u with E[u u^T] = B: the gradient of the loss for a label drawn from the model's own
prediction, once per position. (Martens, Grosse, *Optimizing neural networks with Kronecker-factored approximate
curvature*, ICML 2015.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from oubli.components.curvature.draws import normals, uniforms
from oubli.components.curvature.samplewise import loss_hessians
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NonFiniteInput
from oubli.components.model.losses import Loss
from oubli.components.model.objective import Objective

_IGNORED = -100  # torch's cross-entropy leaves such labels out


def exact_roots(objective: Objective, outputs: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """All roots of B: K vectors u_k with sum_k u_k u_k^T = B; for a loss from elsewhere by an eigendecomposition.

    Args:
        objective: The model and its loss.
        outputs: (b, ...) of the model.
        labels: (b, ...).

    Returns:
        K tensors (b, ...) in the outputs' shape, detached.

    Raises:
        IndefiniteCurvature: B has a negative eigenvalue.
        NonFiniteInput: B is not finite.
    """
    outputs = outputs.detach()
    elements = outputs[0].numel()
    if objective.kind is Loss.CROSS_ENTROPY:
        yield from _cross_entropy_roots(outputs, labels)
    elif objective.kind is None:
        roots = _root_by_eigenvalues(objective, outputs, labels)
        for column in range(elements):
            yield roots[:, column].reshape(outputs.shape)
    else:
        weights = _diagonal(objective.kind, outputs).sqrt().reshape(len(outputs), -1)
        for column in range(elements):
            root = torch.zeros_like(weights)
            root[:, column] = weights[:, column]
            yield root.reshape(outputs.shape)


def sampled_root(objective: Objective, outputs: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
    """One random u with E[u u^T] = B.

    Args:
        objective: The model and its loss.
        outputs: (b, ...) of the model.
        labels: (b, ...).
        keys: (b,) int64 `draws.sample_keys`, from which the labels are drawn.

    Returns:
        (b, ...) in the outputs' shape, detached.

    Raises:
        ConfigurationError: The loss is from elsewhere: it predicts no distribution to draw a label from.
    """
    outputs = outputs.detach()
    elements = outputs[0].numel()
    if objective.kind is None:
        raise ConfigurationError(
            "Labels cannot be drawn for a loss that Oubli does not know.",
            remedy="Use exact Kronecker factors, or the curvature ggn.",
        )
    if objective.kind is Loss.CROSS_ENTROPY:
        return _cross_entropy_draw(outputs, labels, keys)
    if objective.kind is Loss.MSE:
        noise: Tensor = normals(keys, elements).to(outputs).reshape(outputs.shape)
        return noise * _diagonal(Loss.MSE, outputs).sqrt()
    probability = outputs.sigmoid()
    ones = uniforms(keys, elements).to(outputs.device).reshape(outputs.shape) < probability
    # Each position's own gradient, times sqrt(1/K): the loss is their mean, and so is its Hessian.
    drawn: Tensor = (probability - ones.to(probability)) / elements**0.5
    return drawn


def _diagonal(kind: Loss, outputs: Tensor) -> Tensor:
    """B's diagonal for the losses that treat each output alone."""
    elements = outputs[0].numel()
    if kind is Loss.MSE:
        return torch.full_like(outputs, 2 / elements)
    probability = outputs.sigmoid()
    return probability * (1 - probability) / elements


def _cross_entropy_roots(outputs: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """sqrt(p_c / T) (e_c - p) at one position, for each class c and position: diag(p) - p p^T in all."""
    probability = outputs.softmax(1).flatten(2) if outputs.ndim > 2 else outputs.softmax(1)[:, :, None]
    counted = (labels != _IGNORED).reshape(len(outputs), -1).to(outputs)
    classes, positions = probability.shape[1:]
    for at in range(positions):
        here = probability[:, :, at]
        for label in range(classes):
            root = torch.zeros_like(probability)
            root[:, :, at] = -here
            root[:, label, at] += 1
            root[:, :, at] *= (here[:, label] * counted[:, at] / positions).sqrt()[:, None]
            yield root.reshape(outputs.shape)


def _cross_entropy_draw(outputs: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
    """(p - e_c) / sqrt(T) at each position, for a class c drawn from p."""
    probability = outputs.softmax(1).flatten(2) if outputs.ndim > 2 else outputs.softmax(1)[:, :, None]
    classes, positions = probability.shape[1:]
    counted = (labels != _IGNORED).reshape(len(outputs), -1).to(outputs)
    drawn = uniforms(keys, positions).to(outputs.device)
    below = probability.double().cumsum(1) <= drawn[:, None, :]
    label = below.sum(1).clamp(max=classes - 1)
    root = probability.scatter_add(1, label[:, None, :], -torch.ones_like(probability[:, :1]))
    # One draw per position, each with the weight that makes the expectation B: 1/T in place of 1/T^2.
    scaled: Tensor = root * counted[:, None, :] / positions**0.5
    return scaled.reshape(outputs.shape)


def _root_by_eigenvalues(objective: Objective, outputs: Tensor, labels: Tensor) -> Tensor:
    """(b, K, K) rows r with R^T R = B."""
    inner = loss_hessians(objective, outputs.shape[1:])
    return root_rows(inner(outputs.reshape(len(outputs), -1), labels))


def root_rows(inner: Tensor) -> Tensor:
    """The root of each of several matrices.

    Args:
        inner: B (b, K, K), symmetric.

    Returns:
        R (b, K, K) with R^T R = B.

    Raises:
        IndefiniteCurvature: Some B has a negative eigenvalue: no real root exists.
        NonFiniteInput: Some B is not finite.
    """
    if not bool(torch.isfinite(inner).all()):
        raise NonFiniteInput(
            "The loss's Hessian in the outputs is NaN or infinite.",
            remedy="Check the samples for missing or huge values, or compute in float64.",
        )
    eigenvalues, vectors = torch.linalg.eigh(inner)
    rounding = inner.shape[-1] * torch.finfo(inner.dtype).eps * eigenvalues.abs().amax()
    lowest = float(eigenvalues.min())
    if lowest < -rounding:
        raise IndefiniteCurvature(
            f"The loss is not convex in the outputs: its Hessian there has the eigenvalue {lowest:.3g}.",
            remedy="A factor A with A^T A = G does not exist; use the dense matrix or products.",
        )
    roots: Tensor = eigenvalues.clamp(min=0).sqrt()[:, :, None] * vectors.transpose(1, 2)
    return roots
