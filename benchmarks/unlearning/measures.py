"""What is measured on an updated model, beside models retrained without the removed samples.

Axes: m removed samples, n - m retained samples, d parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from torch import Tensor

from benchmarks.unlearning.removals import Removal
from benchmarks.unlearning.trainings import Trained
from oubli.components.gate.evidence import GateEvidence
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.verdict import judge
from oubli.components.measures.evaluation import parameter_distance, prediction_divergence, tug_of_war
from oubli.components.measures.measurement import Measurement, measure
from oubli.components.measures.membership import membership_inference
from oubli.components.measures.relearning import relearn
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples

RELEARNING_EPOCHS = 30


def figures(model: Measurement) -> dict[str, object]:
    """Under the names of the results' lines: loss and accuracy on the removed, retained and test samples, the retained
    gradient's norm, and the area under the curve of membership inference on the removed against the test samples."""
    found: dict[str, object] = {"retained_gradient": model.gradient_norm, "membership_auc": _membership(model)}
    for name in ("forget", "retained", "test"):
        one = getattr(model.sets, name)
        found[f"{name}_loss"] = one.loss
        found[f"{name}_accuracy"] = one.accuracy
    return found


@dataclass(frozen=True)
class Reference:
    """The original and the retrained models of one removal, and their figures, computed once."""

    removal: Removal
    original: Trained
    retrained: tuple[Trained, ...]

    @cached_property
    def removed(self) -> Samples:
        return self.removal.removed

    @cached_property
    def retained(self) -> Samples:
        return self.removal.retained

    @cached_property
    def before(self) -> Measurement:
        """Of the original."""
        return self._measure(self.original.objective, self.original.theta)

    @cached_property
    def targets(self) -> tuple[Measurement, ...]:
        """Of each retrained model."""
        return tuple(self._measure(one.objective, one.theta) for one in self.retrained)

    @cached_property
    def floor(self) -> float | None:
        """Mean divergence on the removed samples of retraining with other seeds from retraining; None for one seed."""
        first, others = self.retrained[0], self.retrained[1:]
        return fmean(self._divergence(first, one.objective, one.theta) for one in others) if others else None

    @cached_property
    def retained_membership(self) -> float:
        """How well membership inference on the original tells training samples from test samples."""
        train, test = self.removal.data.train, self.removal.data.test
        found = membership_inference(self.original.objective, self.original.theta, train, test)
        assert found is not None
        return found.auc

    def _measure(self, objective: Objective, theta: Tensor) -> Measurement:
        return measure(objective, theta, self.removed, self.retained, self.removal.data.test)

    def divergence(self, objective: Objective, theta: Tensor) -> float:
        """Mean divergence of a model's predictions on the removed samples from those of the retrained model."""
        return self._divergence(self.retrained[0], objective, theta)

    def divergence_from_others(self, objective: Objective, theta: Tensor) -> float | None:
        """The same from the models that were retrained with other seeds."""
        others = self.retrained[1:]
        return fmean(self._divergence(one, objective, theta) for one in others) if others else None

    def _divergence(self, one: Trained, objective: Objective, theta: Tensor) -> float:
        found = prediction_divergence((one.objective, one.theta), (objective, theta), self.removed)
        assert found is not None
        return found

    def shared(self) -> dict[str, object]:
        """The figures that every case of this removal carries, to be read beside its own."""
        targets = [figures(one) for one in self.targets]
        return {
            "m": self.removal.count,
            "n": len(self.removal.data.train),
            "d": self.original.objective.space.d,
            "original": figures(self.before),
            "retrained": {key: fmean(float(str(one[key])) for one in targets) for key in targets[0]},
            "retrained_models": len(self.retrained),
            "retained_membership_auc": self.retained_membership,
            "original_divergence": self.divergence(self.original.objective, self.original.theta),
            "floor": self.floor,
            "floor_membership": _spread([_membership(one) for one in self.targets]),
            "floor_test_accuracy": _spread([_accuracy(one) for one in self.targets]),
            "retrain_seconds": fmean(one.seconds for one in self.retrained),
            "train_gradient": self.original.gradient,
        }

    def of_update(self, theta: Tensor, *, convex: bool) -> dict[str, object]:
        """The figures of updated weights theta (d,) of the original's module."""
        objective = self.original.objective
        own = self._measure(objective, theta)
        found: dict[str, object] = {
            **figures(own),
            "divergence": self.divergence(objective, theta),
            "divergence_from_others": self.divergence_from_others(objective, theta),
            "gradient_ratio": own.gradient_norm / self.before.gradient_norm,
            "test_accuracy_off": abs(_accuracy(own) - fmean(_accuracy(one) for one in self.targets)),
            "membership_off": abs(_membership(own) - fmean(_membership(one) for one in self.targets)),
            "tug_of_war": fmean(float(tug_of_war(own.sets, one.sets) or 0.0) for one in self.targets),
        }
        if convex:
            target = self.retrained[0].theta
            found["distance"] = parameter_distance(theta, target, relative_to=self.original.theta)
        return found

    def relearning(self, objective: Objective, theta: Tensor) -> int | None:
        """Epochs on the removed samples until their loss is the original's; None: not in RELEARNING_EPOCHS."""
        goal = self.before.sets.forget.loss
        return relearn(objective, theta, self.removed, goal=goal, max_epochs=RELEARNING_EPOCHS, seed=0).epochs


def verdict(evidence: GateEvidence) -> dict[str, object]:
    found = judge(evidence, GateLimits())
    return {"verdict": found.decision.value, "reasons": [one.code.value for one in found.reasons]}


def _membership(one: Measurement) -> float:
    assert one.forget_membership is not None
    return one.forget_membership.auc


def _accuracy(one: Measurement) -> float:
    assert one.sets.test.accuracy is not None
    return one.sets.test.accuracy


def _spread(values: list[float]) -> float:
    return max(values) - min(values)
