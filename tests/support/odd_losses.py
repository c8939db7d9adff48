"""Losses of a user's own: some on which no update can be made, one of a batch, and one that vmap cannot run."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def curves_down(outputs: Tensor, labels: Tensor) -> Tensor:
    """Concave in the outputs: the curvature has negative directions everywhere."""
    return functional.cross_entropy(outputs, labels, reduction="none") - 5 * outputs.square().sum(1)


def knows_nothing(outputs: Tensor, labels: Tensor) -> Tensor:
    """The same for every input, so that no slice carries anything of a sample."""
    return 0 * outputs.sum(1) + 1


def bends_infinitely(outputs: Tensor, labels: Tensor) -> Tensor:
    """Finite with finite gradients, and a second derivative that is not."""
    return functional.cross_entropy(outputs, labels, reduction="none") + (0 * outputs).abs().pow(1.5).sum(1)


def margin(outputs: Tensor, labels: Tensor) -> Tensor:
    """Softplus of how far the other classes come to the right one's score plus 1; vmap has no rule for one_hot."""
    own = functional.one_hot(labels, outputs.shape[1]).bool()
    others = outputs.masked_fill(own, -1e9).logsumexp(1)
    return functional.softplus(1 + others - outputs.masked_fill(~own, 0).sum(1))


def margin_by_index(outputs: Tensor, labels: Tensor) -> Tensor:
    """The same, as vmap can run it."""
    others = outputs.scatter(1, labels[:, None], -1e9).logsumexp(1)
    return functional.softplus(1 + others - outputs.gather(1, labels[:, None])[:, 0])


def contrastive(outputs: Tensor, labels: Tensor) -> Tensor:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020): each sample against the others of its batch."""
    embedded = functional.normalize(outputs, dim=1)
    itself = torch.eye(len(embedded), dtype=torch.bool)
    similar = (embedded @ embedded.T / 0.5).masked_fill(itself, -1e9)
    same = (labels[:, None] == labels) & ~itself
    return -(similar.log_softmax(1) * same).sum(1) / same.sum(1).clamp(min=1)
