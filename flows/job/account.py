"""What was removed since the model was trained: the account that noise, capacity and shares of classes are drawn from.

Axes: n samples that the model was trained on, m of them removed since, over all versions; d trained parameters.

The *origin* of a version is the nearest one that was trained or retrained. What had been removed before it was trained
never was in it, and does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from oubli.components.curvature.kinds import CurvatureKind
from oubli.components.gate.capacity import (
    Assumptions,
    CapacityStatement,
    DeletionCapacity,
    PrivacyTarget,
    noisy,
    relative_noise,
)
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.smoothness import Smoothness
from oubli.components.measures.class_shares import class_shares
from oubli.components.measures.evaluation import Evaluation
from oubli.flows.job.choices import Choices
from oubli.registry.models.lineage import Method
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.removals.removal_job import RemovalJob
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.storage.digests import store_digest
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import LabelKind, Split

# Of the keyed digest that seeds the noise: as much as a seed holds.
_SEED_DIGITS = 15


@dataclass(frozen=True)
class Account:
    """Everything removed since training, this removal included.

    parent_removed: every id that the parent lacks. new_ids: those that this removal takes.
    """

    registry: ModelRegistry
    parent: RegisteredVersion
    data: TrainingData
    job: RemovalJob
    choices: Choices
    parent_removed: frozenset[str]
    new_ids: frozenset[str]

    @cached_property
    def origin(self) -> RegisteredVersion | None:
        """The trained or retrained version that the parent comes from; None where it was deleted."""
        versions = {one.version: one for one in self.registry.versions(self.parent.name)}
        for number in (self.parent.version, *self.parent.ancestors):
            version = versions.get(number)
            if version is None or version.tags.get("oubli.method") != Method.UNLEARNED.value:
                return version
        return None

    @cached_property
    def never_in(self) -> frozenset[str]:
        """Ids that the data holds and the origin was not trained on."""
        # With the origin gone nobody knows; counting them as removed since then errs on the side of more noise.
        return frozenset() if self.origin is None else frozenset(removed_before(self.origin))

    @property
    def trained_on(self) -> int:
        """n."""
        return self.choices.record.n - len(self.never_in)

    @property
    def removed(self) -> int:
        """m."""
        return len((self.parent_removed | self.new_ids) - self.never_in)

    def class_shares(self) -> dict[int, float]:
        """Per class, the share of the samples trained on that is removed; empty where samples have no single class."""
        if self.choices.record.label_kind is not LabelKind.CLASS:
            return {}
        ids, labels = self.data.labels_of(Split.TRAIN)
        if labels.ndim != 1:
            return {}
        gone = (self.parent_removed | self.new_ids) - self.never_in
        trained = torch.tensor([each not in self.never_in for each in ids])
        removed = torch.tensor([each in gone for each in ids])
        return class_shares(labels[removed], labels[trained])

    def test_of_origin(self) -> Evaluation | None:
        """The origin's test figures, as they were measured when it was registered; None where they cannot be found."""
        if self.origin is None or self.origin.run_id is None:
            return None
        metrics = self.registry.client.get_run(self.origin.run_id).data.metrics
        if "test_loss" not in metrics or "test_samples" not in metrics:
            return None
        return Evaluation(int(metrics["test_samples"]), metrics["test_loss"], metrics.get("test_accuracy"))

    def capacity(self, theta: Tensor) -> DeletionCapacity | None:
        """The accountant of the parent's weights theta (d,); None where no privacy target is set."""
        privacy, sensitivity = self.job.config.privacy, self.choices.record.sensitivity
        if privacy is None or sensitivity is None:
            return None
        return DeletionCapacity(
            PrivacyTarget(privacy.epsilon, privacy.delta),
            Smoothness(sensitivity.lipschitz, sensitivity.hessian_lipschitz),
            strong_convexity=self.choices.record.l2,
            samples=self.trained_on,
            max_noise=relative_noise(privacy.max_noise, theta),
        )

    def noised(self, theta: Tensor, parent: Tensor) -> tuple[Tensor, float]:
        """The updated weights theta (d,) with the noise that the account asks for, and its standard deviation.

        parent: the weights before the update. No noise where the capacity is spent: the gate refuses, with figures of
        the update itself.
        """
        account = self.capacity(parent)
        if account is None or account.spent(self.removed):
            return theta, 0.0
        sigma = account.sigma(self.removed)
        # Known to the store alone: who could draw the noise again could take it off. And the same in every retry.
        secret = store_digest(self.job.store_root, ["noise", self.job.outcome])
        generator = torch.Generator().manual_seed(int(secret[:_SEED_DIGITS], 16))
        return noisy(theta, sigma, generator), sigma

    def statement(self, parent: Tensor, update: Mapping[str, Any], *, whole: bool) -> CapacityStatement | None:
        """What may be said of privacy after the update with these facts. whole: it moved all parameters."""
        account, sensitivity = self.capacity(parent), self.choices.record.sensitivity
        if account is None or sensitivity is None:
            return None
        convex = self.choices.record.convex
        exact = update["curvature"] in (CurvatureKind.GGN.value, CurvatureKind.HESSIAN.value, "snapshot (dense)")
        assumptions = Assumptions(
            convex=convex,
            smoothness_proven=sensitivity.proven,
            at_minimum=update["model_gradient"] <= GateLimits.gradient_floor,
            all_parameters=whole,
            exact_curvature=convex
            and exact
            and self.job.config.curvature_samples is None
            and all(step["damping"] == 0 for step in update["steps"]),
        )
        return account.statement(self.removed, assumptions, noise=update["noise_sigma"])


def capacity_metrics(statement: CapacityStatement) -> dict[str, float]:
    """What a run shows of the account; figures that are not finite are left to the sentence."""
    found = {
        "capacity_gamma": statement.gamma,
        "capacity_remaining": float(max(0, statement.capacity - statement.removed)),
        "noise_sigma": statement.noise,
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}
