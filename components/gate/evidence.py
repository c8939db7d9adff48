"""What the gate judges: the figures of an update, or why there is none.

Axes: n training samples, m of them removed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from oubli.components.gate.capacity import CapacityStatement, measured_gamma
from oubli.components.measures.evaluation import Evaluation


@dataclass(frozen=True)
class MembershipEvidence:
    """Areas under the curve of membership inference against test samples.

    Attributes:
        before: of the removed samples, by the weights before the update.
        after: of the removed samples, by the weights after it.
        retained: of the retained samples, by the weights before.
    """

    before: float
    after: float
    retained: float

    @property
    def expected(self) -> float:
        """The area for the removed samples that a model which never saw them would have, estimated without one.

        Training made its samples recognisable by `retained` over chance. The removed samples should lose that much, and
        keep what makes them recognisable for being easy or hard.
        """
        return self.before - (self.retained - 0.5)


@dataclass(frozen=True)
class UpdateEvidence:
    """What was measured on an update that was made; None where a figure was not measured.

    Attributes:
        convex: the loss is convex in the trained parameters.
        weights_finite: all updated weights are finite.
        test_before: the parent on the test set.
        test_after: the updated model on the test set.
        gradient_before: ||grad F_R|| at the weights before the update.
        gradient_after: ||grad F_R|| at the weights after it.
        test_original: the model that was trained, on the test set, where the parent came from it by removals; for the
            first removal, `test_before`.
        model_gradient: ||grad F_S|| at the weights before the update, S being all samples that they were trained on,
            the removed ones included.
        removal_gradient: (1/(n-m)) ||sum over the removed of (grad loss + l2 w)||, at the same weights.
        class_shares: per class, the share of its training samples that were removed since training
            (`measures.class_shares`); empty where samples have no class.
        membership: how well the removed and the retained samples can be distinguished from test samples.
        capacity: the accountant's statement, this removal included.
        l2: the coefficient of F's l2 term, which must cover all trained parameters.
    """

    convex: bool
    weights_finite: bool
    test_before: Evaluation
    test_after: Evaluation
    gradient_before: float
    gradient_after: float
    test_original: Evaluation | None = None
    model_gradient: float | None = None
    removal_gradient: float | None = None
    class_shares: Mapping[int, float] | None = None
    membership: MembershipEvidence | None = None
    capacity: CapacityStatement | None = None
    l2: float | None = None

    @property
    def distance_bound(self) -> float | None:
        """||grad F_R(w-)|| / l2, which ||w- - w_R|| does not exceed, w_R being the minimiser of F_R.

        By strong convexity; None where the model is not convex or l2 is not known to be positive. w- are the weights
        that `gradient_after` was measured at: noise that was added later is not covered.
        """
        if not self.convex or not self.l2:
            return None
        return measured_gamma(self.gradient_after, self.l2) if math.isfinite(self.gradient_after) else None


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


GateEvidence = UpdateEvidence | IndefiniteEvidence | UnsolvedEvidence | EmptyBlockEvidence
