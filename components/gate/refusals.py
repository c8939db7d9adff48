"""The reasons for a refusal, and what helps against each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from oubli.components.gate.evidence import Step


class RefusalCode(StrEnum):
    """Which rule refused."""

    TEST_ACCURACY_FELL = "test_accuracy_fell"
    TEST_LOSS_ROSE = "test_loss_rose"
    ACCURACY_FELL_SINCE_TRAINING = "accuracy_fell_since_training"
    LOSS_ROSE_SINCE_TRAINING = "loss_rose_since_training"
    HELD_OUT_ACCURACY_FELL = "held_out_accuracy_fell"
    FAR_FROM_RETRAINING = "far_from_retraining"
    RETAINED_GRADIENT_REMAINS = "retained_gradient_remains"
    NOT_COMPARED = "not_compared"
    AUDITOR_FAILED = "auditor_failed"
    DISAGREES = "disagrees_more_than_one_who_never_saw"
    TOO_SURE = "surer_than_of_samples_like_it"
    KNOWS_LABELS = "knows_labels_it_never_saw"
    PUSHED_AWAY = "less_sure_than_one_who_never_saw"
    OVERSHOT = "loss_beyond_one_who_never_saw"
    DRIFTED = "drifted_where_nothing_was_removed"
    STILL_RECOGNISED = "still_recognised"
    CAPACITY_SPENT = "capacity_spent"
    CURVATURE_INDEFINITE = "curvature_indefinite"
    NOTHING_SELECTED = "nothing_selected"
    NOT_SOLVED = "not_solved"
    NOT_FINITE = "not_finite"


@dataclass(frozen=True)
class Refusal:
    """One reason.

    Attributes:
        code: The rule.
        finding: What was measured, and the limit.
        remedy: What helps.
    """

    code: RefusalCode
    finding: str
    remedy: str

    @property
    def sentence(self) -> str:
        """The finding and what helps."""
        return f"{self.finding} {self.remedy}"


_AT_LAST = "Where that is not enough, set when_refused to 'retrain'."

_STILL_THERE = {
    Step.NEWTON: f"Set method to 'matching', or a smaller damping. {_AT_LAST}",
    Step.SNAPSHOT: f"Set method to 'matching', or use_snapshot to 'never'. {_AT_LAST}",
    Step.MATCHING: "Let the surrogate learn longer (surrogate_epochs), or give it more held-out rows (a validation "
    f"split). {_AT_LAST}",
}
_TOO_FAR = {
    Step.NEWTON: f"Set a larger damping, or method to 'matching'. {_AT_LAST}",
    Step.SNAPSHOT: f"Set use_snapshot to 'never', a larger damping, or method to 'matching'. {_AT_LAST}",
    Step.MATCHING: f"More steps leave less drift (matching_steps); so do more held-out rows. {_AT_LAST}",
}
_CHAIN = dict.fromkeys(
    Step, "The losses of a chain add up, and no single removal undoes them: set when_refused to 'retrain'."
)
_UNFINISHED = {
    Step.NEWTON: "Take more steps, on all parameters (selection 'full'), with curvature 'ggn' and no damping.",
    Step.SNAPSHOT: "Set use_snapshot to 'never', so that more steps can follow the first.",
    Step.MATCHING: "Set method to 'newton', which ends at the minimiser of a convex model.",
}

REMEDIES: Mapping[RefusalCode, Mapping[Step, str]] = MappingProxyType(
    {
        RefusalCode.TEST_ACCURACY_FELL: _TOO_FAR,
        RefusalCode.TEST_LOSS_ROSE: _TOO_FAR,
        RefusalCode.ACCURACY_FELL_SINCE_TRAINING: _CHAIN,
        RefusalCode.LOSS_ROSE_SINCE_TRAINING: _CHAIN,
        RefusalCode.HELD_OUT_ACCURACY_FELL: _TOO_FAR,
        RefusalCode.FAR_FROM_RETRAINING: _UNFINISHED,
        RefusalCode.RETAINED_GRADIENT_REMAINS: _UNFINISHED,
        RefusalCode.NOT_COMPARED: dict.fromkeys(
            Step,
            "Set compare_with_retraining to true. Auditors serve networks whose loss is cross_entropy or "
            "bce_with_logits.",
        ),
        RefusalCode.AUDITOR_FAILED: dict.fromkeys(
            Step,
            "Check that optimiser, learning rate and batch size in the training record are the model's own, or "
            "set compare_with_retraining to true.",
        ),
        RefusalCode.DISAGREES: _STILL_THERE,
        RefusalCode.TOO_SURE: _STILL_THERE,
        RefusalCode.KNOWS_LABELS: _STILL_THERE,
        RefusalCode.STILL_RECOGNISED: _STILL_THERE,
        RefusalCode.PUSHED_AWAY: _TOO_FAR,
        RefusalCode.OVERSHOT: _TOO_FAR,
        RefusalCode.DRIFTED: _TOO_FAR,
        RefusalCode.CAPACITY_SPENT: dict.fromkeys(
            Step,
            "Allow more noise (privacy.max_noise, or a larger privacy.epsilon), or set when_refused to 'retrain', "
            "which starts a new account.",
        ),
        RefusalCode.CURVATURE_INDEFINITE: dict.fromkeys(Step, "Set curvature to 'ggn', or a larger damping."),
        RefusalCode.NOTHING_SELECTED: dict.fromkeys(Step, "Set selection to 'full', or more perturbations."),
        RefusalCode.NOT_SOLVED: {
            Step.NEWTON: "Set method to 'matching', or a damping larger than those that were tried.",
            Step.SNAPSHOT: "Set use_snapshot to 'never', method to 'matching', or a larger damping.",
            Step.MATCHING: "Check that the training record's optimiser and learning rate are the model's own.",
        },
        RefusalCode.NOT_FINITE: dict.fromkeys(
            Step, "Check the inputs and the parent's weights for values that are not finite; else set a larger damping."
        ),
    }
)
"""What helps against each reason, by the way in which the update was made; retraining only where nothing is cheaper."""


def refusal(code: RefusalCode, finding: str, step: Step = Step.NEWTON) -> Refusal:
    """The reason with its remedy."""
    return Refusal(code, finding, REMEDIES[code][step])
