"""The dense Gauss-Newton matrix of a model whose trained part is one linear layer at its end.

Axes: n samples, b samples of a chunk, C outputs, I features (and the bias's one), d = C * I parameters.

    G = (1/n) * sum_i B_i (x) a_i a_i^T

for features a_i and the loss's Hessian in the outputs B_i (C, C): C (C + 1) / 2 products of (I, b) by (b, I) matrices,
a 2C-th of the work that the Jacobians of the general way take. Softmax regression, and linear heads on frozen features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oubli.components.curvature.kronecker.layer_inputs import with_ones
from oubli.components.curvature.samplewise import loss_hessians
from oubli.components.model.chunking import samples_per_chunk
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples, SampleSource
from oubli.components.solvers import full_precision


@dataclass(frozen=True)
class LinearHead:
    """A linear layer that holds all trained parameters and ends the model.

    Attributes:
        module: The layer's qualified name.
        bias: Whether its bias is trained.
        outputs: C.
        features: I, with the bias's one.
    """

    module: str
    bias: bool
    outputs: int
    features: int

    def dense(self, objective: Objective, theta: Tensor, source: SampleSource, budget_bytes: int) -> Tensor:
        """n * G.

        Args:
            objective: The model and its loss.
            theta: (d,) weights.
            source: The n samples.
            budget_bytes: What one chunk's temporaries may take.

        Returns:
            (d, d), symmetric, in the order of theta.
        """
        width, outputs = self.features, self.outputs
        total = theta.new_zeros(outputs, outputs, width, width)
        sample_bytes = 4 * (width + outputs**2) * theta.dtype.itemsize
        for features, inner in self.curvatures(objective, theta, source, samples_per_chunk(sample_bytes, budget_bytes)):
            with full_precision():
                for row in range(outputs):
                    for column in range(row + 1):
                        # sum_i B_i[row, column] a_i a_i^T
                        total[row, column].addmm_((features * inner[:, row, column, None]).T, features)
        for row in range(outputs):
            for column in range(row):
                total[column, row] = total[row, column].T
        flat = total.transpose(1, 2).reshape(outputs * width, outputs * width)
        order = self.order(theta.device)
        flat = flat[order[:, None], order]
        return (flat + flat.T) / 2

    def order(self, device: torch.device) -> Tensor:
        """(d,) where each element of theta lies in a flat (C, I) matrix whose last column is the bias."""
        order = torch.arange(self.outputs * self.features, device=device).reshape(self.outputs, self.features)
        if self.bias:
            # Weights first, then biases, as the parameters come.
            return torch.cat([order[:, :-1].reshape(-1), order[:, -1]])
        return order.reshape(-1)

    def curvatures(
        self, objective: Objective, theta: Tensor, source: SampleSource, size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of at most `size` samples: features (b, I), and B (b, C, C)."""
        inner_of = loss_hessians(objective, torch.Size([self.outputs]))
        for features, outputs, labels in self.passed(objective, theta, source, size):
            yield features, inner_of(outputs, labels)

    def passed(
        self, objective: Objective, theta: Tensor, source: SampleSource, size: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Chunks of at most `size` samples: features (b, I), outputs (b, C), labels."""
        layer = objective.module.get_submodule(self.module)
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _module, arguments, _output: seen.append(arguments[0]))
        try:
            for batch in source.batches(size):
                samples = objective.prepare(batch)
                outputs = _outputs(objective, theta, samples)
                features = seen.pop()
                yield (with_ones(features[:, None])[:, 0] if self.bias else features), outputs, samples.labels
        finally:
            hook.remove()


def find_linear_head(objective: Objective, inputs: Tensor) -> LinearHead | None:
    """The head, where all trained parameters are one Linear's and the model returns what it returns; else None.

    Args:
        objective: The model and its loss.
        inputs: (1, ...), prepared; run through once.
    """
    names = {id(parameter): name for name, parameter in objective.module.named_parameters()}
    for name, module in objective.module.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        own = [names.get(id(parameter)) for parameter in (module.weight, module.bias) if parameter is not None]
        if own != list(objective.space.names) and own[:1] != list(objective.space.names):
            continue
        seen: list[tuple[Tensor, Tensor]] = []

        def see(
            _module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor, seen: list[tuple[Tensor, Tensor]] = seen
        ) -> None:
            seen.append((arguments[0], output))

        hook = module.register_forward_hook(see)
        try:
            with torch.no_grad():
                outputs = objective.outputs({}, inputs)
        finally:
            hook.remove()
        if len(seen) == 1 and outputs is seen[0][1] and outputs.ndim == 2:
            trained_bias = len(objective.space.names) == 2
            return LinearHead(name, trained_bias, module.out_features, module.in_features + trained_bias)
    return None


def _outputs(objective: Objective, theta: Tensor, samples: Samples) -> Tensor:
    """The model's outputs (b, C) for prepared samples."""
    with torch.no_grad():
        return objective.outputs(objective.space.unflatten(theta), samples.inputs)
