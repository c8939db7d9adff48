"""Kronecker-factored curvature of whole output units: K-FAC and EK-FAC.

Axes: n samples, C outputs of a layer, I inputs of one output (bias included), d_P parameters of the block.

Both stand for the generalised Gauss-Newton matrix, layer by layer, with nothing between layers. `Kronecker` takes a
layer's block for the product of two small factors (kronecker/sums.py has the formula). `EigenvalueCorrected` keeps that
product's eigenbasis and puts the true second moments of the per-sample gradients on its diagonal, which no other
diagonal in this basis brings nearer to the layer's block (George et al., *Fast approximate natural gradient descent in
a Kronecker-factored eigenbasis*, NeurIPS 2018); it takes a second pass.

A block may hold a part of a layer's output units: their factor is the sub-matrix, and the product stays exact in the
same sense. Parameters outside such layers get the diagonal of the generalised Gauss-Newton matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from oubli.components.curvature.kronecker.layers import BlockCoverage, block_coverage, find_coverage
from oubli.components.curvature.kronecker.sums import KroneckerPass, KroneckerSums
from oubli.components.curvature.kronecker.system import KroneckerBlock, KroneckerSystem
from oubli.components.errors import IndefiniteCurvature
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES, first_sample
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import SampleSource
from oubli.components.solvers import System


@dataclass(frozen=True)
class Kronecker:
    """K-FAC over `source`, at the weights and on the block of `restriction`.

    seed: of the drawn labels (ConfigurationError for a loss that is not one of `losses.Loss`); None takes all columns
    of the loss's Hessian, one backward pass each. Computed at the first use, then kept. ConfigurationError where the
    block cuts through an output unit.
    """

    restriction: Restriction
    source: SampleSource
    budget_bytes: int = MEMORY_BUDGET_BYTES
    seed: int | None = 0

    @property
    def size(self) -> int:
        """d_P."""
        return self.restriction.size

    @property
    def kronecker(self) -> tuple[str, ...]:
        """Names of the layers in the block that are factored."""
        return tuple(one.layer.module for one in self._block.layers)

    @property
    def diagonal(self) -> tuple[str, ...]:
        """Names of the parameter tensors in the block that only have a diagonal."""
        return self._block.diagonal

    def matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector (d_P,)."""
        return self._system.matvec(vector)

    def dense(self) -> Tensor:
        """The whole matrix (d_P, d_P)."""
        return self._system.dense()

    def system(self) -> System:
        """Solved by dividing in the eigenbasis: a shift is added exactly."""
        return self._system

    @cached_property
    def _block(self) -> BlockCoverage:
        objective = self.restriction.objective
        return block_coverage(self.restriction, find_coverage(objective, first_sample(objective, self.source)))

    @cached_property
    def _pass(self) -> KroneckerPass:
        return KroneckerPass(
            self.restriction.objective, self.restriction.theta, self._block.coverage, self.seed, self.budget_bytes
        )

    @cached_property
    def _system(self) -> KroneckerSystem:
        return kronecker_system(self.restriction, self._block, self._pass.sums(self.source))


@dataclass(frozen=True)
class EigenvalueCorrected(Kronecker):
    """EK-FAC: the same, with corrected eigenvalues."""

    @cached_property
    def _system(self) -> KroneckerSystem:
        found = kronecker_system(self.restriction, self._block, self._pass.sums(self.source))
        layers = zip(self._block.layers, found.blocks, strict=True)
        bases = {one.layer.module: (one.units, block.left, block.right) for one, block in layers}
        if not bases:
            return found
        corrected = self._pass.corrected(self.source, bases)
        blocks = tuple(
            KroneckerBlock(block.places, block.left, block.right, corrected[one.layer.module])
            for one, block in zip(self._block.layers, found.blocks, strict=True)
        )
        return KroneckerSystem(found.size, blocks, found.places, found.values)


def kronecker_system(restriction: Restriction, block: BlockCoverage, sums: KroneckerSums) -> KroneckerSystem:
    """The block's matrix from sums over samples, in the objective's dtype.

    IndefiniteCurvature where a factor has a negative eigenvalue beyond rounding: more was subtracted than was in it.
    """
    like = restriction.theta
    blocks = []
    for one in block.layers:
        own = sums.layers[one.layer.module]
        inputs = (own.inputs / own.rows).to(like)
        outputs = (own.outputs[one.units][:, one.units] / sums.count).to(like)
        right_values, right = _eigen(inputs, one.layer.module)
        left_values, left = _eigen(outputs, one.layer.module)
        blocks.append(KroneckerBlock(one.places, left, right, torch.outer(left_values, right_values)))
    parts = [(sums.squares[name][block.within[name]] / sums.count).to(like) for name in block.diagonal]
    values = _not_negative(torch.cat(parts), "the diagonal") if parts else like.new_empty(0)
    return KroneckerSystem(restriction.size, tuple(blocks), block.places, values)


def _eigen(factor: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh((factor + factor.T) / 2)
    return _not_negative(values, f"a factor of the layer {layer!r}"), vectors


def _not_negative(values: Tensor, what: str) -> Tensor:
    """The values, those that rounding brought below 0 at 0."""
    lowest, scale = float(values.min()), float(values.abs().max())
    if lowest < -(torch.finfo(values.dtype).eps ** 0.5) * scale:
        raise IndefiniteCurvature(
            f"The smallest eigenvalue of {what} is {lowest:.3g}, the largest {scale:.3g}.",
            remedy="Subtract only samples that the curvature was taken over, at the weights it was taken at.",
        )
    return values.clamp(min=0)
