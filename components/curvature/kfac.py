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

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from oubli.components.curvature.base import SourceCurvature
from oubli.components.curvature.kronecker.layers import BlockCoverage, block_coverage, find_coverage
from oubli.components.curvature.kronecker.sums import KroneckerPass, KroneckerSums
from oubli.components.curvature.kronecker.system import KroneckerBlock, KroneckerSystem
from oubli.components.errors import IndefiniteCurvature
from oubli.components.model.chunking import first_sample
from oubli.components.model.restriction import Restriction
from oubli.components.solvers import System


@dataclass(frozen=True)
class Kronecker(SourceCurvature):
    """K-FAC over `source`, at the weights and on the block of `restriction`; computed at the first use, then kept.

    Attributes:
        seed: Of the drawn labels; None takes all columns of the loss's Hessian, one backward pass each.

    Raises:
        ConfigurationError: The block cuts through an output unit, or labels are to be drawn for a loss that is not one
            of `losses.Loss`; raised at the first use.
    """

    seed: int | None = 0

    @property
    def kronecker(self) -> tuple[str, ...]:
        """Names of the layers in the block that are factored."""
        return tuple(part.layer.module for part in self._block.layers)

    @property
    def diagonal(self) -> tuple[str, ...]:
        """Names of the parameter tensors in the block that only have a diagonal."""
        return self._block.diagonal

    def matvec(self, vector: Tensor) -> Tensor:
        """The product with a vector (d_P,); (d_P,)."""
        return self._system.matvec(vector)

    def dense(self) -> Tensor:
        """The whole matrix (d_P, d_P)."""
        return self._system.dense()

    def system(self) -> System:
        """Solved by dividing in the eigenbasis: a shift is added exactly."""
        return self._system

    @cached_property
    def _block(self) -> BlockCoverage:
        coverage = find_coverage(self.objective, first_sample(self.objective, self.source))
        return block_coverage(self.restriction, coverage)

    @cached_property
    def _pass(self) -> KroneckerPass:
        return KroneckerPass(self.objective, self.restriction.theta, self._block.coverage, self.seed, self.budget_bytes)

    @cached_property
    def _system(self) -> KroneckerSystem:
        return kronecker_system(self.restriction, self._block, self._pass.sums(self.source))


@dataclass(frozen=True)
class EigenvalueCorrected(Kronecker):
    """EK-FAC: the same, with corrected eigenvalues, for a second pass."""

    @cached_property
    def _system(self) -> KroneckerSystem:
        plain = kronecker_system(self.restriction, self._block, self._pass.sums(self.source))
        layers = list(zip(self._block.layers, plain.blocks, strict=True))
        bases = {part.layer.module: (part.units, block.left, block.right) for part, block in layers}
        if not bases:
            return plain
        corrected = self._pass.corrected(self.source, bases)
        blocks = tuple(replace(block, eigenvalues=corrected[part.layer.module]) for part, block in layers)
        return replace(plain, blocks=blocks)


def kronecker_system(restriction: Restriction, block: BlockCoverage, sums: KroneckerSums) -> KroneckerSystem:
    """The block's matrix from sums over samples, in the objective's dtype.

    Args:
        restriction: The block, at its weights.
        block: Which layers' output units and which single parameters it holds.
        sums: Over samples, of at least what the block holds.

    Raises:
        IndefiniteCurvature: A factor has a negative eigenvalue beyond rounding: more was subtracted than was in it.
    """
    like = restriction.theta
    blocks = []
    for part in block.layers:
        name, units = part.layer.module, part.units
        own = sums.layers[name]
        # E[a a^T] (I, I), and E[g g^T] (C_P, C_P) per sample
        inputs = (own.inputs / own.rows).to(like)
        outputs = (own.outputs[units][:, units] / sums.count).to(like)
        right_values, right = _eigen(inputs, name)
        left_values, left = _eigen(outputs, name)
        # (left diag(l) left^T) (x) (right diag(r) right^T) has the eigenvalues l r^T
        blocks.append(KroneckerBlock(part.places, left, right, torch.outer(left_values, right_values)))
    parts = [(sums.squares[name][block.within[name]] / sums.count).to(like) for name in block.diagonal]
    values = _not_negative(torch.cat(parts), "the diagonal") if parts else like.new_empty(0)
    return KroneckerSystem(restriction.size, tuple(blocks), block.places, values)


def _eigen(factor: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues, not negative, and orthonormal eigenvectors as columns."""
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
