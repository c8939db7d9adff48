"""Everything that is measured on one model, in one call: the same figures wherever a model is judged or recorded.

Axes: m removed samples, n - m retained, k test samples, d parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.measures.class_means import class_mean_accuracies
from oubli.components.measures.evaluation import (
    Evaluation,
    Figures,
    ThreeSets,
    figures,
    retained_gradient_norm,
)
from oubli.components.measures.membership import MembershipInference, membership_auc
from oubli.components.model.objective import Objective
from oubli.components.model.samples import SampleSource


@dataclass(frozen=True)
class Measurement:
    """One model's figures.

    Attributes:
        forget: on the m removed samples; None where none were given.
        retained: on the n - m retained samples.
        test: on the k test samples; None where there are none.
        gradient_norm: ||grad F_R||, over all d parameters.
        forget_membership: membership inference, by the loss, of the removed against the test samples; None where
            either set is missing or a loss is NaN.
        retained_membership: the same of the retained samples.
        class_means: the share of each set, by name, that lies nearest to its own class's mean; empty for Oubli's own
            losses, and where outputs are no embeddings or labels no classes.
        test_figures: of each test sample, (k,); None where there are none.
    """

    forget: Evaluation | None
    retained: Evaluation
    test: Evaluation | None
    gradient_norm: float
    forget_membership: MembershipInference | None
    retained_membership: MembershipInference | None
    class_means: Mapping[str, float] = field(default_factory=dict)
    test_figures: Figures | None = None

    @property
    def sets(self) -> ThreeSets:
        """The evaluations on all three sets.

        Raises:
            ConfigurationError: no removed or no test samples were given.
        """
        if self.forget is None or self.test is None:
            raise ConfigurationError(
                "The model was not measured on removed and on test samples.", remedy="Pass `measure` all three sets."
            )
        return ThreeSets(self.forget, self.retained, self.test)

    def metrics(self, suffix: str = "") -> dict[str, float]:
        """The figures by name; what was not measured is left out.

        Args:
            suffix: ends each name, so that a listing in alphabetical order shows a figure of several models side by
                side.

        Returns:
            `forget_loss`, `retained_loss`, `test_loss`, the same with `_accuracy` where the loss has one, with
            `_class_mean_accuracy` where outputs are embeddings,
            `forget_membership_auc`, `forget_membership_auc_error`, the same of `retained`, `retained_gradient_norm`.
        """
        named = {}
        for name, evaluation in (("forget", self.forget), ("retained", self.retained), ("test", self.test)):
            if evaluation is not None:
                named[f"{name}_loss"] = evaluation.loss
                if evaluation.accuracy is not None:
                    named[f"{name}_accuracy"] = evaluation.accuracy
            if name in self.class_means:
                named[f"{name}_class_mean_accuracy"] = self.class_means[name]
        for name, inference in (("forget", self.forget_membership), ("retained", self.retained_membership)):
            if inference is not None:
                named[f"{name}_membership_auc"] = inference.auc
                named[f"{name}_membership_auc_error"] = inference.error
        named["retained_gradient_norm"] = self.gradient_norm
        return {f"{name}{suffix}": value for name, value in named.items()}


def measure(
    objective: Objective, theta: Tensor, removed: SampleSource | None, retained: SampleSource, test: SampleSource
) -> Measurement:
    """The figures of one model.

    One pass over each set, and one more over the retained samples for the gradient.

    Args:
        objective: F of the module, with the buffers that belong to `theta`.
        theta: (d,) weights to measure.
        removed: m samples; None for a model that has just been trained.
        retained: R, at least one sample.
        test: k samples; may be empty.

    Raises:
        ConfigurationError: `retained` is empty.
    """
    forget = _passed(objective, theta, removed)
    kept = figures(objective, theta, retained)
    held_out = _passed(objective, theta, test)
    return Measurement(
        forget=None if forget is None else forget.mean,
        retained=kept.mean,
        test=None if held_out is None else held_out.mean,
        gradient_norm=retained_gradient_norm(objective, theta, retained),
        forget_membership=_membership(forget, held_out),
        retained_membership=_membership(kept, held_out),
        class_means=class_mean_accuracies(
            objective, theta, retained, {"forget": removed, "retained": retained, "test": test}
        ),
        test_figures=held_out,
    )


def _passed(objective: Objective, theta: Tensor, source: SampleSource | None) -> Figures | None:
    """The figures; nothing for a set that is missing or empty."""
    return None if source is None or len(source) == 0 else figures(objective, theta, source)


def _membership(members: Figures | None, others: Figures | None) -> MembershipInference | None:
    """From the losses; the score of `membership_scores` is minus the loss."""
    if members is None or others is None:
        return None
    # NaN losses cannot be ranked; they show in the evaluations.
    if bool(members.losses.isnan().any()) or bool(others.losses.isnan().any()):
        return None
    return membership_auc(-members.losses, -others.losses)
