"""Curvature kept from training, so that a removal needs the removed samples alone.

Axes: n training samples S, m removed samples U, n - m retained samples R, d trained parameters, d_P of them in a block.

At the weights w* that training ended with, sums over S are kept. What U put into them is computed from U, at w*, and
subtracted:

    sum_R grad loss = sum_S - sum_U,        curvature over R = (sum_S - sum_U) / (n - m)

`dense`: the sum of the generalised Gauss-Newton matrices, for small d; the subtraction is exact. `low_rank`: the
leading directions of an estimate of it (low_rank.py), for moderate d; the removed samples' part is subtracted within
them. `kronecker`, for what is larger: the sums that make K-FAC factors and diagonals (kronecker/sums.py); they are
subtracted exactly, so the result is the K-FAC curvature that a fresh pass over R would give, with the approximation
that K-FAC itself is, and nothing further. This holds with drawn labels too, as a draw belongs to its sample and not to
its place (draws.py).

Everything is at w*. After a removal the weights are elsewhere, and the snapshot is not: for a chain of removals pass
`without` all samples removed since training, with theta = w*; the step is then from w*, not from the last version. What
`advance` returns has lost the removed samples' part, but is still of w*: stale by as far as the weights have moved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.kfac import kronecker_system
from oubli.components.curvature.kronecker.layers import Coverage, block_coverage, find_coverage
from oubli.components.curvature.kronecker.sums import KroneckerPass, KroneckerSums, LayerSums
from oubli.components.curvature.matrix import MatrixCurvature
from oubli.components.curvature.protocol import Curvature
from oubli.components.curvature.secant import Secant
from oubli.components.curvature.snapshots.leading_directions import DIRECTIONS, LeadingDirections
from oubli.components.errors import ConfigurationError
from oubli.components.model.chunking import MEMORY_BUDGET_BYTES, first_sample
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples, SampleSource
from oubli.components.progress import Progress

DENSE_BYTES = 128 * 2**20
"""What a dense snapshot may take, as every version stores one: 4,096 parameters in float64, 5,792 in float32."""

DENSE_FLOPS = 1e13
"""What building one may cost: some minutes on two cores."""

LOW_RANK_BYTES = 256 * 2**20
"""What leading directions may take: 262,144 parameters in float32."""


class SnapshotForm(StrEnum):
    """How a snapshot keeps the curvature."""

    DENSE = "dense"
    LOW_RANK = "low_rank"
    KRONECKER = "kronecker"


@dataclass(frozen=True)
class CurvatureSnapshot:
    """Sums over the n training samples, at the weights that training ended with.

    n: samples in the sums. gradient (d,): of loss gradients, without the L2 term. matrix (d, d), directions or factors:
    the curvature, by form. seed: of drawn labels, None where none were. share: of the samples that the factors are made
    of (the gradient is of all). secant: of the last epochs.
    """

    n: int
    gradient: Tensor
    matrix: Tensor | None = None
    factors: KroneckerSums | None = None
    directions: LeadingDirections | None = None
    seed: int | None = None
    share: float = 1.0
    secant: Secant | None = None

    @property
    def form(self) -> SnapshotForm:
        if self.matrix is not None:
            return SnapshotForm.DENSE
        return SnapshotForm.KRONECKER if self.directions is None else SnapshotForm.LOW_RANK

    @classmethod
    def take(
        cls,
        objective: Objective,
        theta: Tensor,
        source: SampleSource,
        *,
        form: SnapshotForm | None = None,
        seed: int | None = 0,
        share: float = 1.0,
        secant: Secant | None = None,
        budget_bytes: int = MEMORY_BUDGET_BYTES,
        on_progress: Progress | None = None,
    ) -> CurvatureSnapshot:
        """The snapshot of a source at theta (d,): one pass over it.

        form: None takes what `choose_form` chooses. seed: of drawn labels, and of the samples that a low rank is made
        of; for the Kronecker form None, and any loss that is not one of `losses.Loss`, takes all columns of the loss's
        Hessian.
        share: of the samples that the Kronecker factors are made of: with many samples a part gives the same factors,
        and the pass costs little more than the gradient's. Which samples follows from their inputs.
        ConfigurationError for an empty source, NonFiniteInput for weights that are not finite.
        """
        objective.check(theta)
        chosen = form or choose_form(objective, source)
        if chosen is SnapshotForm.DENSE:
            gradient = gradient_sum(objective, theta, source, budget_bytes=budget_bytes)
            matrix = _gauss_newton_sum(Restriction(objective, theta, None), source, budget_bytes)
            if on_progress is not None:
                on_progress(1.0)
            return cls(len(source), gradient, matrix, secant=secant)
        if chosen is SnapshotForm.LOW_RANK:
            gradient = gradient_sum(objective, theta, source, budget_bytes=budget_bytes)
            seed = seed or 0
            directions = LeadingDirections.take(
                Restriction(objective, theta, None), source, seed=seed, budget_bytes=budget_bytes
            )
            if on_progress is not None:
                on_progress(1.0)
            return cls(len(source), gradient, directions=directions, seed=seed, secant=secant)
        seed = None if objective.kind is None else seed
        gradient = torch.zeros_like(theta)
        coverage = find_coverage(objective, first_sample(objective, source))
        factors = KroneckerPass(objective, theta, coverage, seed, budget_bytes, share).sums(
            source, gradient=gradient, on_progress=on_progress
        )
        _check_count(factors)
        return cls(len(source), gradient, factors=factors, seed=seed, share=share, secant=secant)

    def without(
        self, restriction: Restriction, removed: Samples, *, budget_bytes: int = MEMORY_BUDGET_BYTES
    ) -> Curvature:
        """The curvature of the mean loss over the retained samples, on the block of `restriction`.

        restriction: at the weights that the snapshot was taken at. removed: samples that it was taken over. Raises
        IndefiniteCurvature where what is left is not positive semi-definite, which one of the two being otherwise
        leads to: at once for factors, in solving for a matrix. ConfigurationError for as many samples as there are, or
        for a block that cuts through an output unit where the form is Kronecker.
        """
        left = self._left(len(removed))
        if self.matrix is not None:
            own = _gauss_newton_sum(restriction, removed, budget_bytes)
            inside = restriction.indices
            return MatrixCurvature((self.matrix[inside[:, None], inside] - own) / left)
        objective = restriction.objective
        if self.directions is not None:
            return self._directions_less(objective, restriction.theta, removed, budget_bytes).on(restriction.indices)
        block = block_coverage(restriction, find_coverage(objective, first_sample(objective, removed)))
        own_sums = self._pass(objective, restriction.theta, block.coverage, budget_bytes).sums(removed)
        return kronecker_system(restriction, block, _check_count(self._factors_of(own_sums).less(own_sums)))

    def advance(
        self,
        objective: Objective,
        theta: Tensor,
        removed: Samples,
        *,
        budget_bytes: int = MEMORY_BUDGET_BYTES,
    ) -> CurvatureSnapshot:
        """The snapshot without the removed samples' part, still of the weights theta (d,) that it was taken at.

        For a later removal that reads neither the retained samples nor those removed before. The gradient and the
        curvature stay those of theta, though the weights have moved: use it where they moved little. The secant goes,
        as what the removed samples put into it is not known.
        """
        left = self._left(len(removed))
        gradient = self.gradient - gradient_sum(objective, theta, removed, budget_bytes=budget_bytes)
        if self.matrix is not None:
            matrix = self.matrix - _gauss_newton_sum(Restriction(objective, theta, None), removed, budget_bytes)
            return dataclasses.replace(self, n=left, gradient=gradient, matrix=matrix, secant=None)
        if self.directions is not None:
            directions = self._directions_less(objective, theta, removed, budget_bytes)
            return dataclasses.replace(self, n=left, gradient=gradient, directions=directions, secant=None)
        coverage = find_coverage(objective, first_sample(objective, removed))
        own = self._pass(objective, theta, coverage, budget_bytes).sums(removed)
        factors = _check_count(self._factors_of(own).less(own))
        return dataclasses.replace(self, n=left, gradient=gradient, factors=factors, secant=None)

    def tensors(self) -> dict[str, Tensor]:
        """Everything large, by name; with `facts`, all that `restore` needs."""
        named = {"gradient": self.gradient}
        if self.matrix is not None:
            named["matrix"] = self.matrix
        if self.directions is not None:
            named |= {"directions.basis": self.directions.basis, "directions.values": self.directions.values}
        if self.factors is not None:
            for name, layer in self.factors.layers.items():
                named[f"layer.{name}.inputs"] = layer.inputs
                named[f"layer.{name}.outputs"] = layer.outputs
            for name, values in self.factors.squares.items():
                named[f"diagonal.{name}"] = values
        if self.secant is not None:
            named |= {"secant.step": self.secant.step, "secant.change": self.secant.change}
        return {name: tensor.detach().contiguous() for name, tensor in named.items()}

    def facts(self) -> dict[str, object]:
        """The scalars, as JSON knows them."""
        return {
            "n": self.n,
            "form": self.form.value,
            "seed": self.seed,
            "share": self.share,
            "count": 0 if self.factors is None else self.factors.count,
            "rows": {} if self.factors is None else {name: one.rows for name, one in self.factors.layers.items()},
            "diagonal": [] if self.factors is None else list(self.factors.squares),
            "secant": self.secant is not None,
        }

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> CurvatureSnapshot:
        """What `tensors` and `facts` were of; ConfigurationError where they are of no snapshot."""
        try:
            return cls._restored(tensors, facts)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(
                f"These tensors and facts make no curvature snapshot: {error!r}.",
                remedy="Take the snapshot anew from the training data, or pass over the retained samples.",
            ) from error

    @classmethod
    def _restored(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> CurvatureSnapshot:
        n, rows, diagonal, seed = facts["n"], facts["rows"], facts["diagonal"], facts["seed"]
        share, count = facts["share"], facts["count"]
        if not (isinstance(n, int) and isinstance(rows, Mapping) and isinstance(diagonal, list)):
            raise TypeError("n, rows or diagonal")
        if not ((seed is None or isinstance(seed, int)) and isinstance(share, int | float) and isinstance(count, int)):
            raise TypeError("seed, share or count")
        form = SnapshotForm(str(facts["form"]))
        matrix = tensors["matrix"] if form is SnapshotForm.DENSE else None
        directions = factors = None
        if form is SnapshotForm.LOW_RANK:
            directions = LeadingDirections(tensors["directions.basis"], tensors["directions.values"])
        elif form is SnapshotForm.KRONECKER:
            layers = {
                name: LayerSums(tensors[f"layer.{name}.inputs"], tensors[f"layer.{name}.outputs"], int(number))
                for name, number in rows.items()
            }
            factors = KroneckerSums(layers, {name: tensors[f"diagonal.{name}"] for name in diagonal}, count)
        secant = Secant(tensors["secant.step"], tensors["secant.change"]) if facts["secant"] else None
        return cls(n, tensors["gradient"], matrix, factors, directions, seed, share, secant)

    def to(self, objective: Objective) -> CurvatureSnapshot:
        """On the objective's device and in its dtype."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(objective.device, objective.dtype)

        factors = self.factors
        if factors is not None:
            layers = {
                name: LayerSums(move(one.inputs), move(one.outputs), one.rows) for name, one in factors.layers.items()
            }
            squares = {name: move(one) for name, one in factors.squares.items()}
            factors = KroneckerSums(layers, squares, factors.count)
        matrix = None if self.matrix is None else move(self.matrix)
        directions = self.directions
        if directions is not None:
            directions = LeadingDirections(move(directions.basis), move(directions.values))
        return dataclasses.replace(
            self, gradient=move(self.gradient), matrix=matrix, factors=factors, directions=directions
        )

    def _directions_less(
        self, objective: Objective, theta: Tensor, removed: Samples, budget_bytes: int
    ) -> LeadingDirections:
        kept, whole = self.directions, Restriction(objective, theta, None)
        if kept is None or kept.basis.shape[1] != whole.size:
            raise ConfigurationError(
                f"The snapshot's directions are not of {whole.size} parameters.",
                remedy="Take it with the objective that is used.",
            )
        return kept.less(whole, removed, self.n, seed=self.seed or 0, budget_bytes=budget_bytes)

    def _pass(self, objective: Objective, theta: Tensor, coverage: Coverage, budget_bytes: int) -> KroneckerPass:
        """The pass that the factors come from, for other samples."""
        return KroneckerPass(objective, theta, coverage, self.seed, budget_bytes, self.share)

    def _left(self, removed: int) -> int:
        if not 0 < removed < self.n:
            raise ConfigurationError(
                f"{removed} samples cannot be taken from a snapshot of {self.n}.",
                remedy="Pass at least one removed sample, and fewer than the model was trained on.",
            )
        return self.n - removed

    def _factors_of(self, own: KroneckerSums) -> KroneckerSums:
        """The part of the kept sums that has to do with what `own` is of."""
        kept = self.factors
        missing = set(own.layers) - set(kept.layers) if kept else set(own.layers)
        missing |= set(own.squares) - set(kept.squares) if kept else set(own.squares)
        if kept is None or missing:
            raise ConfigurationError(
                f"The snapshot lacks {', '.join(sorted(missing))}.", remedy="Take it with the objective that is used."
            )
        return KroneckerSums(
            {name: kept.layers[name] for name in own.layers},
            {name: kept.squares[name] for name in own.squares},
            kept.count,
        )


def _check_count(factors: KroneckerSums) -> KroneckerSums:
    if factors.count <= 0:
        raise ConfigurationError(
            "No sample is left that the snapshot's factors are made of.",
            remedy="Take the snapshot with a larger share, or remove with a pass over the retained samples.",
        )
    return factors


def choose_form(objective: Objective, source: SampleSource) -> SnapshotForm:
    """Dense where its matrix and the work of building it stay within DENSE_BYTES and DENSE_FLOPS.

    Beyond, leading directions where they stay within LOW_RANK_BYTES and labels can be drawn for the loss; else
    Kronecker factors.
    """
    d, itemsize = objective.space.d, objective.dtype.itemsize
    if d**2 * itemsize <= DENSE_BYTES:
        restriction = Restriction(objective, objective.theta(), None)
        if GaussNewton(restriction, source).dense_flops() <= DENSE_FLOPS:
            return SnapshotForm.DENSE
    if objective.kind is not None and DIRECTIONS * d * itemsize <= LOW_RANK_BYTES:
        return SnapshotForm.LOW_RANK
    return SnapshotForm.KRONECKER


def _gauss_newton_sum(restriction: Restriction, source: SampleSource, budget_bytes: int) -> Tensor:
    return GaussNewton(restriction, source, budget_bytes).dense() * len(source)
