"""A factor of a convex objective's curvature, kept from training for every removal that follows.

Axes: n samples, d trained parameters, C outputs, I features of a linear head (the bias's one included).

It preconditions steps that take the exact gradient, and so decides how many passes they take and never where they end.
Therefore it is kept in float32, stays as it is over a chain of removals, and may be coarse:

- `DenseFactor`: Cholesky's triangle of the whole curvature, to DENSE_PARAMETERS parameters.
- `OutputFactor`: of a larger linear head, an inverse for each output, to OUTPUT_ELEMENTS numbers.
- `KroneckerFactor`: of one beyond that, the eigenvectors of its features' and its outputs' second moments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import torch
from torch import Tensor

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.grams import dense_gram, kronecker_grams, output_grams
from oubli.components.curvature.linear_head import LinearHead, find_linear_head
from oubli.components.errors import ConfigurationError, IndefiniteCurvature
from oubli.components.model.chunking import first_sample
from oubli.components.model.losses import Loss
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import SampleSource
from oubli.components.solvers import full_precision

DENSE_PARAMETERS = 20_000
"""To which number a whole triangle is kept: 1.6 GB in float32."""

DENSE_FLOPS = 1e13
"""What building the matrix for it may cost: some minutes on one core."""

OUTPUT_ELEMENTS = 2**28
"""To how many numbers an inverse for each output is kept: 1 GB in float32."""

_SHIFTS = 6


class FactorForm(StrEnum):
    """How a factor is kept."""

    DENSE = "dense_factor"
    OUTPUTS = "output_factor"
    KRONECKER = "kronecker_factor"


@dataclass(frozen=True)
class CurvatureFactor(ABC):
    """An approximate inverse of the Hessian of F, symmetric and positive definite, at the weights it was taken at."""

    form: ClassVar[FactorForm]

    @property
    @abstractmethod
    def d(self) -> int:
        """Number of parameters that it serves."""

    def solve(self, vector: Tensor) -> Tensor:
        """About H^{-1} v.

        Args:
            vector: v (d,).

        Returns:
            (d,), in the vector's dtype.
        """
        # Near a minimum gradients are tiny: float32 holds them in units of their own size.
        scale = float(vector.abs().max()) or 1.0
        with full_precision():
            return self._solved((vector / scale).to(torch.float32)).to(vector) * scale

    def to(self, device: torch.device | str) -> CurvatureFactor:
        """The factor on a device."""
        return restore_factor({name: tensor.to(device) for name, tensor in self.tensors().items()}, self.facts())

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything large, by name; with `facts`, all that `restore_factor` needs."""

    @abstractmethod
    def facts(self) -> dict[str, object]:
        """The scalars, as JSON knows them."""

    @abstractmethod
    def _solved(self, vector: Tensor) -> Tensor:
        """The same in float32."""


@dataclass(frozen=True)
class DenseFactor(CurvatureFactor):
    """Cholesky's triangle of the whole matrix.

    Attributes:
        upper: R (d, d) with R^T R the matrix, float32.
    """

    form: ClassVar[FactorForm] = FactorForm.DENSE
    upper: Tensor = field(repr=False)

    @classmethod
    def of(cls, matrix: Tensor, l2: float) -> DenseFactor:
        """The factor of a curvature (d, d) with the L2 term added, or more where float32 cannot tell that from 0.

        Raises:
            IndefiniteCurvature: The matrix is far from positive definite.
        """
        return cls(_upper(matrix.to(torch.float32), l2).contiguous())

    @property
    def d(self) -> int:
        return len(self.upper)

    def tensors(self) -> dict[str, Tensor]:
        return {"upper": self.upper}

    def facts(self) -> dict[str, object]:
        return {"form": self.form.value}

    def _solved(self, vector: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(self.upper.mT, vector[:, None], upper=False)
        solved: Tensor = torch.linalg.solve_triangular(self.upper, half, upper=True)
        return solved[:, 0]


@dataclass(frozen=True)
class OutputFactor(CurvatureFactor):
    """The inverse of each output's own block of a linear head's matrix. What couples the outputs is left out.

    Attributes:
        inverses: (C, I, I), float32.
        bias: Whether the head's bias is trained, which is then the last of the features.
        l2: Of the objective.
        shift_invariant: Whether the loss stays as it is where all outputs are shifted alike, as cross-entropy does. The
            curvature along such shifts is l2 alone, which the outputs' own blocks do not show.
    """

    form: ClassVar[FactorForm] = FactorForm.OUTPUTS
    inverses: Tensor = field(repr=False)
    bias: bool
    l2: float
    shift_invariant: bool

    @classmethod
    def of(cls, blocks: Tensor, l2: float, *, bias: bool, shift_invariant: bool) -> OutputFactor:
        """The factor of blocks (C, I, I), which are overwritten."""
        for block in blocks:
            block.copy_(torch.cholesky_inverse(_upper(block, l2), upper=True))
        return cls(blocks, bias, l2, shift_invariant)

    @property
    def d(self) -> int:
        return len(self.inverses) * self.inverses.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        return {"inverses": self.inverses}

    def facts(self) -> dict[str, object]:
        return {"form": self.form.value, "bias": self.bias, "l2": self.l2, "shift_invariant": self.shift_invariant}

    def _solved(self, vector: Tensor) -> Tensor:
        rows = _rows(vector, len(self.inverses), bias=self.bias)
        if not self.shift_invariant:
            return _flat(torch.bmm(self.inverses, rows[..., None])[..., 0], bias=self.bias)
        shared = rows.mean(0, keepdim=True)
        solved = torch.bmm(self.inverses, (rows - shared)[..., None])[..., 0]
        return _flat(solved - solved.mean(0, keepdim=True) + shared / self.l2, bias=self.bias)


@dataclass(frozen=True)
class KroneckerFactor(CurvatureFactor):
    """Of B (x) A + l2 I, for the second moments A of a linear head's features and the mean curvature B in its outputs.

    Attributes:
        features: (I, I) eigenvectors of A, float32.
        feature_values: (I,) eigenvalues of A.
        outputs: (C, C) eigenvectors of B.
        output_values: (C,) eigenvalues of B.
        bias: Whether the head's bias is trained, which is then the last of the features.
        l2: Of the objective.
    """

    form: ClassVar[FactorForm] = FactorForm.KRONECKER
    features: Tensor = field(repr=False)
    feature_values: Tensor = field(repr=False)
    outputs: Tensor = field(repr=False)
    output_values: Tensor = field(repr=False)
    bias: bool
    l2: float

    @classmethod
    def of(cls, outputs: Tensor, features: Tensor, l2: float, *, bias: bool) -> KroneckerFactor:
        """The factor of B (C, C) and A (I, I)."""
        output_values, output_vectors = torch.linalg.eigh(outputs)
        feature_values, feature_vectors = torch.linalg.eigh(features)
        # Rounding leaves some below 0.
        values = feature_values.clamp(min=0), output_values.clamp(min=0)
        return cls(feature_vectors.contiguous(), values[0], output_vectors.contiguous(), values[1], bias, l2)

    @property
    def d(self) -> int:
        return len(self.features) * len(self.outputs)

    def tensors(self) -> dict[str, Tensor]:
        return {
            "features": self.features,
            "feature_values": self.feature_values,
            "outputs": self.outputs,
            "output_values": self.output_values,
        }

    def facts(self) -> dict[str, object]:
        return {"form": self.form.value, "bias": self.bias, "l2": self.l2}

    def _solved(self, vector: Tensor) -> Tensor:
        turned = self.outputs.T @ _rows(vector, len(self.outputs), bias=self.bias) @ self.features
        turned /= self.output_values[:, None] * self.feature_values + self.l2
        return _flat(self.outputs @ turned @ self.features.T, bias=self.bias)


def take_factor(objective: Objective, theta: Tensor, source: SampleSource) -> CurvatureFactor | None:
    """The factor of F's curvature at theta over a source, in the form that suits its size.

    Args:
        objective: F, with a positive l2.
        theta: (d,) weights.
        source: The n samples.

    Returns:
        None where the model is too large for a dense factor and no linear head.

    Raises:
        ConfigurationError: The source is empty.
        IndefiniteCurvature: The loss is not convex in the outputs.
        NonFiniteInput: The weights are not finite.
    """
    objective.check(theta)
    head = find_linear_head(objective, first_sample(objective, source))
    if head is not None and not _fits_dense(head, len(source)):
        if head.outputs * head.features**2 <= OUTPUT_ELEMENTS:
            blocks = output_grams(objective, theta, source, head)
            invariant = objective.kind is Loss.CROSS_ENTROPY
            return OutputFactor.of(blocks, objective.l2, bias=head.bias, shift_invariant=invariant)
        outputs, features = kronecker_grams(objective, theta, source, head)
        return KroneckerFactor.of(outputs, features, objective.l2, bias=head.bias)
    if head is not None:
        return DenseFactor.of(dense_gram(objective, theta, source, head), objective.l2)
    curvature = GaussNewton(Restriction(objective, theta, None), source)
    if objective.space.d > DENSE_PARAMETERS or curvature.dense_flops() > DENSE_FLOPS:
        return None
    return DenseFactor.of(curvature.dense(), objective.l2)


def restore_factor(tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> CurvatureFactor:
    """The factor that `CurvatureFactor.tensors` and `CurvatureFactor.facts` were of.

    Raises:
        ConfigurationError: They are of no factor.
    """
    try:
        form = FactorForm(str(facts["form"]))
        if form is FactorForm.DENSE:
            return DenseFactor(tensors["upper"])
        if form is FactorForm.OUTPUTS:
            bias, l2 = bool(facts["bias"]), float(str(facts["l2"]))
            return OutputFactor(tensors["inverses"], bias, l2, bool(facts["shift_invariant"]))
        return KroneckerFactor(
            tensors["features"],
            tensors["feature_values"],
            tensors["outputs"],
            tensors["output_values"],
            bool(facts["bias"]),
            float(str(facts["l2"])),
        )
    except (KeyError, ValueError) as error:
        raise ConfigurationError(
            f"These tensors and facts make no curvature factor: {error!r}.",
            remedy="Set use_snapshot to 'never': the factor is then made anew from the retained samples.",
        ) from error


def _fits_dense(head: LinearHead, samples: int) -> bool:
    d = head.outputs * head.features
    return d <= DENSE_PARAMETERS and samples * head.outputs**2 * head.features**2 / 2 <= DENSE_FLOPS


def _upper(matrix: Tensor, l2: float) -> Tensor:
    """R with R^T R = matrix + l2 I, or with more than l2 where float32 cannot tell that from 0."""
    for power in range(_SHIFTS):
        shifted = matrix.clone()
        # What is added beyond l2 costs steps and no accuracy.
        shifted.diagonal().add_(l2 * 4**power)
        factored: tuple[Tensor, Tensor] = torch.linalg.cholesky_ex(shifted, upper=True)
        if not int(factored[1]):
            return factored[0]
    raise IndefiniteCurvature(
        f"The curvature is not positive definite in float32, even with {l2 * 4 ** (_SHIFTS - 1):.3g} added to it.",
        remedy="Check that the loss is convex in the outputs, raise l2, or normalise the inputs.",
    )


def _rows(vector: Tensor, outputs: int, *, bias: bool) -> Tensor:
    """(C, I) of a vector (d,), which has the weights first and then the biases."""
    if not bias:
        return vector.reshape(outputs, -1)
    return torch.cat([vector[:-outputs].reshape(outputs, -1), vector[-outputs:, None]], 1)


def _flat(rows: Tensor, *, bias: bool) -> Tensor:
    """(d,) of (C, I)."""
    return torch.cat([rows[:, :-1].reshape(-1), rows[:, -1]]) if bias else rows.reshape(-1)
