"""What the gate judges: the figures of an update, or why there is none.

Axes: n training samples, m of them removed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from oubli.components.gate.acceptance import AcceptanceStatistics
from oubli.components.gate.capacity import CapacityStatement, measured_gamma
from oubli.components.measures.evaluation import Figures
from oubli.components.measures.paired import Paired, paired


class Step(StrEnum):
    """How an update was made: what helps where it is refused depends on that."""

    NEWTON = "newton"
    SNAPSHOT = "newton, from a snapshot"
    MATCHING = "matching"


class Beside(StrEnum):
    """The model that an update's utility is compared with."""

    PARENT = "the parent"
    TRAINED = "the trained model"
    RETRAINED = "the retrained model"


@dataclass(frozen=True)
class Utility:
    """The updated model beside another on the same test samples.

    Attributes:
        beside: The other.
        figure: Accuracy, the other's first; the loss where there is none.
        by_loss: Whether it is the loss.
        left_out: Test samples that do not count: those of classes and subjects that are removed, on which retraining
            loses as much.
    """

    beside: Beside
    figure: Paired
    by_loss: bool
    left_out: int = 0

    @classmethod
    def of(cls, beside: Beside, other: Figures, updated: Figures, counted: Tensor | None = None) -> Utility | None:
        """From figures on the same k samples.

        Args:
            beside: What the other is.
            other: Its figures.
            updated: The updated model's.
            counted: (k,) bool, the samples that count; None for all.

        Returns:
            None where no sample counts.
        """
        left_out = 0
        if counted is not None:
            left_out = int((~counted).sum())
            other, updated = other.select(counted), updated.select(counted)
        if len(updated.losses) == 0:
            return None
        if other.correct is None or updated.correct is None:
            return cls(beside, paired(other.losses, updated.losses), True, left_out)
        return cls(beside, paired(other.correct, updated.correct), False, left_out)


@dataclass(frozen=True)
class MembershipEvidence:
    """Areas under the curve of membership inference against test samples.

    Attributes:
        before: of the removed samples, by the weights before the update.
        after: of the removed samples, by the weights after it.
        retained: of the retained samples, by the weights before.
        retrained: of the removed samples, by the retrained model; None where there is none.
        error: the standard deviation of an area that says nothing.
    """

    before: float
    after: float
    retained: float
    retrained: float | None = None
    error: float = 0.0


@dataclass(frozen=True)
class UpdateEvidence:
    """What was measured on an update that was made; None, or empty, where a figure was not measured.

    Attributes:
        convex: the loss is convex in the trained parameters.
        weights_finite: all updated weights are finite.
        gradient_before: ||grad F_R|| at the weights before the update.
        gradient_after: ||grad F_R|| at the weights after it.
        step: how the update was made.
        utility: the updated model on test samples, beside the parent, beside the trained model that the parent came
            from by removals, beside the retrained one.
        acceptance: a network beside models that never saw the removed samples.
        auditor_failed: which auditor's training failed, and how; empty where none did, or none was wanted.
        model_gradient: ||grad F_S|| at the weights before the update, S being all samples that they were trained on,
            the removed ones included.
        removal_gradient: (1/(n-m)) ||sum over the removed of (grad loss + l2 w)||, at the same weights.
        class_shares: per class, the share of its training samples that were removed since training
            (`measures.class_shares`); empty where samples have no class.
        membership: how well the removed and the retained samples can be distinguished from test samples.
        capacity: the accountant's statement, this removal included.
        l2: the coefficient of F's l2 term, which must cover all trained parameters.
        weight_norm: ||w-||.
    """

    convex: bool
    weights_finite: bool
    gradient_before: float
    gradient_after: float
    step: Step = Step.NEWTON
    utility: tuple[Utility, ...] = ()
    acceptance: AcceptanceStatistics | None = None
    auditor_failed: str = ""
    model_gradient: float | None = None
    removal_gradient: float | None = None
    class_shares: Mapping[int, float] | None = None
    membership: MembershipEvidence | None = None
    capacity: CapacityStatement | None = None
    l2: float | None = None
    weight_norm: float | None = None

    @property
    def distance_bound(self) -> float | None:
        """||grad F_R(w-)|| / l2, which ||w- - w_R|| does not exceed, w_R being the minimiser of F_R.

        By strong convexity; None where the model is not convex or l2 is not known to be positive. w- are the weights
        that `gradient_after` was measured at: noise that was added later is not covered.
        """
        if not self.convex or not self.l2:
            return None
        return measured_gamma(self.gradient_after, self.l2) if math.isfinite(self.gradient_after) else None

    @property
    def relative_bound(self) -> float | None:
        """`distance_bound` in units of the weights' norm; None where either is not known."""
        if self.distance_bound is None or not self.weight_norm:
            return None
        return self.distance_bound / self.weight_norm

    @property
    def compared(self) -> tuple[Utility, ...]:
        """The comparisons that decide: with the retrained model where there is one, else all that differ."""
        beside_retrained = tuple(one for one in self.utility if one.beside is Beside.RETRAINED)
        if beside_retrained:
            return beside_retrained
        parent = [one.figure for one in self.utility if one.beside is Beside.PARENT]
        # At the first removal, the parent is the trained model.
        return tuple(one for one in self.utility if one.beside is Beside.PARENT or one.figure not in parent)

    def equals_retraining(self, distance: float) -> bool:
        """Whether the weights are, by proof, within a share of their norm of the retrained ones, and without noise."""
        noisy = self.capacity is not None and self.capacity.noise > 0
        return not noisy and self.relative_bound is not None and self.relative_bound <= distance


@dataclass(frozen=True)
class IndefiniteEvidence:
    """The update could not be made: the damped curvature was indefinite, as `finding` says with its figures."""

    finding: str


@dataclass(frozen=True)
class EmptyBlockEvidence:
    """No update was tried: selection chose none of `candidates` slices for any removed sample."""

    candidates: int


@dataclass(frozen=True)
class UnsolvedEvidence:
    """The update could not be computed to its tolerance, or from finite numbers, as `finding` says with its figures."""

    finding: str
    step: Step = Step.NEWTON


GateEvidence = UpdateEvidence | IndefiniteEvidence | UnsolvedEvidence | EmptyBlockEvidence
