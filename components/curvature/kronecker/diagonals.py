"""Per-sample squared gradients of parameters that no Kronecker layer holds.

Axes: b samples, T positions, C channels, V rows of an embedding, E its width.

Normalisation affines and embeddings have closed forms from the gradient in the layer's output, so that they cost no
backward pass of their own. What is left goes through `vmap`, or one sample at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from oubli.components.model.objective import Objective

CLOSED_FORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.Embedding)


def closed_form_modules(objective: Objective, names: Sequence[str], called: Sequence[str]) -> dict[str, dict[str, str]]:
    """Modules that `CLOSED_FORMS` serve; one whose parameters another module uses too is left out.

    Args:
        objective: The model and its loss.
        names: Parameters that a diagonal is asked of.
        called: Modules whose `forward` is called.

    Returns:
        By module, by "weight" or "bias": the parameter's name.
    """
    own = {id(parameter): name for name, parameter in objective.module.named_parameters()}
    users: dict[int, int] = {}
    for module in objective.module.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                users[id(parameter)] = users.get(id(parameter), 0) + 1
    served: dict[str, dict[str, str]] = {}
    for name, module in objective.module.named_modules():
        if name not in called or not isinstance(module, CLOSED_FORMS):
            continue
        if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq):
            continue
        roles = {
            role: own[id(parameter)]
            for role, parameter in module._parameters.items()
            if parameter is not None and own[id(parameter)] in names and users[id(parameter)] == 1
        }
        if roles:
            served[name] = roles
    return served


def kept_input(module: nn.Module, inputs: Tensor) -> Tensor:
    """What `squares` needs of a module's input: normalised values before the affine map, or token numbers."""
    if isinstance(module, nn.LayerNorm):
        return functional.layer_norm(inputs, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return functional.group_norm(inputs, module.num_groups, eps=module.eps)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return functional.batch_norm(
            inputs, module.running_mean, module.running_var, eps=module.eps, training=module.running_mean is None
        )
    return inputs.clone()


def squares(module: nn.Module, uses: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Sums over the batch of squared per-sample gradients.

    Args:
        module: One of `CLOSED_FORMS`.
        uses: Of each call, what `kept_input` kept, and the gradient in the output; a sample's gradient is their sum.

    Returns:
        By "weight" and "bias", each flat.
    """
    if isinstance(module, nn.Embedding):
        return {"weight": _embedding_squares(module, uses)}
    weights = torch.stack([_per_sample(module, gradient * kept) for kept, gradient in uses]).sum(0)
    biases = torch.stack([_per_sample(module, gradient) for _, gradient in uses]).sum(0)
    return {"weight": weights.square().sum(0), "bias": biases.square().sum(0)}


def _per_sample(module: nn.Module, elements: Tensor) -> Tensor:
    """(b, parameters): elements summed over the positions that share a parameter."""
    if isinstance(module, nn.LayerNorm):
        width = 1
        for length in module.normalized_shape:
            width *= length
        return elements.reshape(len(elements), -1, width).sum(1)
    return elements.flatten(2).sum(2) if elements.ndim > 2 else elements


def _embedding_squares(module: nn.Embedding, uses: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(V * E,). A row's gradient is the sum over the places where the sample has that token:
    (sum_t g_t)^2 = sum_t g_t * sum_t' [same token] g_t'."""
    tokens = torch.cat([kept.reshape(len(kept), -1) for kept, _ in uses], dim=1)
    gradient = torch.cat([part.reshape(len(part), -1, part.shape[-1]) for _, part in uses], dim=1)
    same = (tokens[:, :, None] == tokens[:, None, :]).to(gradient)
    products = gradient * torch.bmm(same, gradient)
    if module.padding_idx is not None:
        products = products * (tokens != module.padding_idx)[:, :, None]
    total = gradient.new_zeros(module.num_embeddings, gradient.shape[-1])
    return total.index_add(0, tokens.reshape(-1), products.flatten(0, 1)).reshape(-1)
