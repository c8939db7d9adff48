"""Sums over samples that make Kronecker factors and diagonals: one pass, and they can be subtracted again.

Axes: n samples, b samples of a batch, T positions of one sample in a layer, C outputs of a layer, I inputs of one
output (bias included).

With a the layer's input rows and g the rows of J^T u in its output (u: a root of the loss's Hessian, output_roots.py)

    inputs = sum a a^T (I, I),   outputs = sum g g^T (C, C),   rows = n T

and the layer's block of the generalised Gauss-Newton matrix is taken for (outputs (x) inputs) / (n * rows): positions
are treated as if independent, and inputs of gradients (Martens, Grosse, ICML 2015; convolutions: Grosse, Martens, *A
Kronecker-factored approximate Fisher matrix for convolution layers*, ICML 2016; weight sharing at large: Eschenhagen
et al., *Kronecker-factored approximate curvature for modern neural network architectures*, NeurIPS 2023, "expand").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from oubli.components.curvature.draws import sample_keys, uniforms
from oubli.components.curvature.kronecker.diagonals import closed_form_modules, kept_input, squares
from oubli.components.curvature.kronecker.layer_inputs import add_outer_products, gradient_rows, input_rows, with_ones
from oubli.components.curvature.kronecker.layer_pass import LayerPass, layer_pass
from oubli.components.curvature.kronecker.layers import Coverage, KroneckerLayer
from oubli.components.curvature.output_roots import exact_roots, sampled_root
from oubli.components.curvature.samplewise import SampleMap
from oubli.components.errors import ConfigurationError
from oubli.components.model.attention import differentiable_attention
from oubli.components.model.chunking import activation_bytes, first_sample, samples_per_chunk
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples, SampleSource
from oubli.components.progress import Progress
from oubli.components.solvers import full_precision

_SHARE_SEED = 0x6F75626C69
"""Of the draw that puts a sample into the share: not the one of its label."""


@dataclass(frozen=True)
class LayerSums:
    """One layer's sums.

    Attributes:
        inputs: (I, I) sum of a a^T.
        outputs: (C, C) sum of g g^T.
        rows: How many rows a are in `inputs`.
    """

    inputs: Tensor
    outputs: Tensor
    rows: int

    def less(self, other: LayerSums) -> LayerSums:
        """Without the samples of `other`."""
        return LayerSums(self.inputs - other.inputs, self.outputs - other.outputs, self.rows - other.rows)


@dataclass(frozen=True)
class KroneckerSums:
    """Sums over samples.

    Attributes:
        layers: By module.
        squares: By parameter name, the sums of squared per-sample gradients, flat.
        count: How many samples.
    """

    layers: Mapping[str, LayerSums]
    squares: Mapping[str, Tensor]
    count: int

    def less(self, other: KroneckerSums) -> KroneckerSums:
        """Without the samples of `other`, which must have been summed with the same seed at the same weights."""
        return KroneckerSums(
            {name: layer.less(other.layers[name]) for name, layer in self.layers.items()},
            {name: values - other.squares[name] for name, values in self.squares.items()},
            self.count - other.count,
        )


@dataclass(frozen=True)
class KroneckerPass:
    """A pass over samples for the layers and diagonals of a coverage.

    Attributes:
        objective: The model and its loss.
        theta: (d,) weights.
        coverage: What is summed.
        seed: Of the drawn labels, one per sample; None takes all columns of the loss's Hessian instead, at one backward
            pass each.
        budget_bytes: What one chunk's temporaries may take.
        share: Of the samples that the sums are made of, in (0, 1]. Whether a sample is one of them follows from its
            input, so the same samples are when they are subtracted.

    Raises:
        ConfigurationError: `share` is out of its range.
    """

    objective: Objective
    theta: Tensor
    coverage: Coverage
    seed: int | None
    budget_bytes: int
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigurationError(
                f"share is {self.share}; it must be above 0 and at most 1.",
                remedy="Give the share of the samples that the factors are made of.",
            )

    def sums(
        self, source: SampleSource, *, gradient: Tensor | None = None, on_progress: Progress | None = None
    ) -> KroneckerSums:
        """The sums over a source's share of samples.

        Args:
            source: The samples.
            gradient: (d,), changed in place: the loss gradients of all samples are added to it, from the same pass.
            on_progress: Told the fraction of samples passed.

        Raises:
            ConfigurationError: The source is empty, or labels are to be drawn for a loss that is not one of
                `losses.Loss`.
        """
        sums = _Accumulators(self)
        done, count = 0, 0
        for samples in self._batches(source, self._sample_bytes(source)):
            chosen = self._chosen(samples)
            with full_precision(), differentiable_attention():
                if len(chosen) == len(samples):
                    sums.add(samples, gradient)
                else:
                    if gradient is not None:
                        gradient += self._gradient(samples)
                    if len(chosen):
                        sums.add(chosen, None)
            done, count = done + len(samples), count + len(chosen)
            if on_progress is not None:
                on_progress(done / len(source))
        return sums.total(count)

    def corrected(self, source: SampleSource, bases: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
        """Mean squares of per-sample gradients in a basis.

        Args:
            source: The samples.
            bases: By module, the output units (C_P,), left (C_P, C_P) and right (I, I).

        Returns:
            By module, (C_P, I).
        """
        totals: dict[str, Tensor] = {}
        rotated = sum(layer.positions * (layer.outputs + layer.columns) for layer in self.coverage.layers)
        largest = max((layer.outputs * layer.columns for layer in self.coverage.layers), default=0)
        extra = 2 * (rotated + largest) * self.objective.dtype.itemsize
        for samples in self._batches(source, self._sample_bytes(source) + extra):
            with full_precision(), differentiable_attention():
                for name, part in self._corrections(samples, bases):
                    totals[name] = part + totals[name] if name in totals else part
        return {name: total / len(source) for name, total in totals.items()}

    def roots(self, outputs: Tensor, samples: Samples) -> Iterator[Tensor]:
        """The vectors (b, ...) whose outer products make, or estimate, the loss's Hessian in the outputs."""
        if self.seed is None:
            yield from exact_roots(self.objective, outputs, samples.labels)
        else:
            yield sampled_root(self.objective, outputs, samples.labels, sample_keys(samples.inputs, self.seed))

    def rows_of(self, layer: KroneckerLayer, module: nn.Module, inputs: Tensor, samples: int) -> Tensor:
        """(b, T, I) input rows, the bias's ones included where it has one."""
        rows = input_rows(module, inputs, samples)
        return rows if layer.bias is None else with_ones(rows)

    def _chosen(self, samples: Samples) -> Samples:
        """Those of a batch that belong to the share."""
        if self.share == 1:
            return samples
        drawn = uniforms(sample_keys(samples.inputs, _SHARE_SEED), 1)[:, 0]
        return samples.select(torch.nonzero(drawn < self.share)[:, 0])

    def _gradient(self, samples: Samples) -> Tensor:
        """The sum (d,) of a batch's loss gradients."""
        weights = self.theta.detach().clone().requires_grad_()
        with torch.enable_grad():
            loss = self.objective.losses(weights, samples).sum()
        return torch.autograd.grad(loss, weights)[0]

    def _batches(self, source: SampleSource, sample_bytes: int) -> Iterator[Samples]:
        chunk = samples_per_chunk(sample_bytes, self.budget_bytes)
        return map(self.objective.prepare, source.batches(chunk))

    def _sample_bytes(self, source: SampleSource) -> int:
        """What one sample takes in a pass."""
        patches = max((layer.positions * layer.columns for layer in self.coverage.layers), default=0)
        own = 2 * sum(len(self.objective.space.range_of(name)) for name in self.coverage.diagonal)
        inputs = first_sample(self.objective, source)
        return 4 * activation_bytes(self.objective, inputs) + (2 * patches + own) * self.objective.dtype.itemsize

    def _corrections(
        self, samples: Samples, bases: Mapping[str, tuple[Tensor, Tensor, Tensor]]
    ) -> Iterator[tuple[str, Tensor]]:
        """Module by module and root by root, the batch's sums of squares (C_P, I)."""
        layers = {layer.module: layer for layer in self.coverage.layers}
        size = len(samples)

        def watch(name: str, module: nn.Module, inputs: Tensor) -> Tensor:
            # a -> right^T a
            return self.rows_of(layers[name], module, inputs, size) @ bases[name][2]

        run = layer_pass(
            self.objective, self.objective.space.unflatten(self.theta), samples.inputs, list(layers), watch
        )
        modules = dict(self.objective.module.named_modules())
        for cotangent in self.roots(run.outputs, samples):
            rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
            for use, gradient in zip(run.uses, run.gradients(cotangent, keep=True), strict=True):
                units, left, _ = bases[use.module]
                # g -> left^T g
                own = gradient_rows(modules[use.module], gradient, size)[..., units] @ left
                if use.kept is not None:
                    rows.setdefault(use.module, []).append((own, use.kept))
            for name, parts in rows.items():
                outer = torch.cat([own for own, _ in parts], 1), torch.cat([kept for _, kept in parts], 1)
                # sum_t g_t a_t^T for each sample, squared
                yield name, torch.bmm(outer[0].transpose(1, 2), outer[1]).square().sum(0)


class _Accumulators:
    """The running sums of a pass."""

    def __init__(self, plan: KroneckerPass) -> None:
        self._plan = plan
        self._objective = plan.objective
        self._layers = {layer.module: layer for layer in plan.coverage.layers}
        self._modules = dict(plan.objective.module.named_modules())
        like = plan.theta.detach()
        self._inputs = {n: like.new_zeros(layer.columns, layer.columns) for n, layer in self._layers.items()}
        self._outputs = {n: like.new_zeros(layer.outputs, layer.outputs) for n, layer in self._layers.items()}
        self._rows = dict.fromkeys(self._layers, 0)
        names = plan.coverage.diagonal
        self._closed = closed_form_modules(plan.objective, names, plan.coverage.called)
        served = {name for roles in self._closed.values() for name in roles.values()}
        self._rest = tuple(name for name in names if name not in served)
        self._squares = {n: like.new_zeros(len(plan.objective.space.range_of(n))) for n in names}

    def add(self, samples: Samples, gradient: Tensor | None) -> None:
        """Add a batch of prepared samples, and their loss gradients to `gradient` (d,)."""
        size = len(samples)
        space = self._objective.space
        weights = self._plan.theta.detach()
        if gradient is not None:
            weights = weights.clone().requires_grad_()
        parameters = space.unflatten(weights)

        def watch(name: str, module: nn.Module, inputs: Tensor) -> Tensor | None:
            layer = self._layers.get(name)
            if layer is None:
                return kept_input(module, inputs)
            rows = input_rows(module, inputs, size)
            add_outer_products(self._inputs[name], rows, bias=layer.bias is not None)
            self._rows[name] += rows.shape[0] * rows.shape[1]
            return None

        watched = [*self._layers, *self._closed]
        if watched:
            run = layer_pass(self._objective, parameters, samples.inputs, watched, watch)
        else:
            run = LayerPass(functional_call(self._objective.module, parameters, (samples.inputs,)), ())
        if gradient is not None:
            loss = self._objective.loss(run.outputs, samples.labels).sum()
            gradient += torch.autograd.grad(loss, weights, retain_graph=bool(watched))[0]
        roots = list(self._plan.roots(run.outputs, samples)) if self._plan.seed is not None else None
        for cotangent in roots or self._plan.roots(run.outputs, samples):
            if watched:
                # One drawn root is the last: its graph may go.
                self._add_gradients(run, run.gradients(cotangent, keep=roots is None), size)
            if self._rest:
                self._add_rest(samples, cotangent)

    def total(self, count: int) -> KroneckerSums:
        """The sums so far, of `count` samples."""
        layers = {n: LayerSums(self._inputs[n], self._outputs[n], self._rows[n]) for n in self._layers}
        return KroneckerSums(layers, self._squares, count)

    def _add_gradients(self, run: LayerPass, gradients: Sequence[Tensor], size: int) -> None:
        """Layers' outer products g g^T, and the squares that have a closed form."""
        kept: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for use, gradient in zip(run.uses, gradients, strict=True):
            if use.module in self._layers:
                rows = gradient_rows(self._modules[use.module], gradient, size)
                add_outer_products(self._outputs[use.module], rows, bias=False)
            elif use.kept is not None:
                kept.setdefault(use.module, []).append((use.kept, gradient))
        for name, uses in kept.items():
            by_role = squares(self._modules[name], uses)
            for role, parameter in self._closed[name].items():
                self._squares[parameter] += by_role[role]

    def _add_rest(self, samples: Samples, cotangent: Tensor) -> None:
        """Parameters without a closed form: their per-sample gradients, by vmap."""
        fixed = self._objective.space.unflatten(self._plan.theta.detach())
        names = self._rest
        sizes = [fixed[name].numel() for name in names]

        def projected(flat: Tensor, inputs: Tensor, along: Tensor) -> Tensor:
            parts = torch.split(flat, sizes)
            moved = {name: part.view(fixed[name].shape) for name, part in zip(names, parts, strict=True)}
            return (self._objective.outputs({**fixed, **moved}, inputs[None])[0] * along).sum()

        values = torch.cat([fixed[name].reshape(-1) for name in names])
        rows = SampleMap(lambda inputs, along: grad(projected)(values, inputs, along))(samples.inputs, cotangent)
        for name, part in zip(names, torch.split(rows.square().sum(0), sizes), strict=True):
            self._squares[name] += part
