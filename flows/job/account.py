"""The account of a lineage: what was removed since it was trained, and what follows from that.

Axes: n samples that the model was trained on, m of them removed since, over all versions; d trained parameters.

The *origin* of a version is the nearest ancestor, itself included, that was trained or retrained. Samples that had been
removed before the origin was trained were never in it, and do not count. From n and m come the noise of a privacy
target, the deletion capacity, and the shares of classes; the origin is also what a chain of removals is held against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from oubli.components.curvature.factors import FactorForm
from oubli.components.curvature.kinds import CurvatureKind
from oubli.components.curvature.snapshots.snapshot import SnapshotForm
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
from oubli.flows.job.data_side import DataSide
from oubli.flows.job.facts import Made
from oubli.flows.job.model_side import ModelSide
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.models.origin import origin_of
from oubli.registry.models.tags import Metric
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.storage.keyed_digests import store_seed
from oubli.registry.training.training_record import LabelKind, Split

_EXACT = (CurvatureKind.GGN, CurvatureKind.HESSIAN, SnapshotForm.DENSE, *FactorForm)
"""Curvatures that are the Hessian of a convex model, where all samples are taken, or lead where it does."""


@dataclass(frozen=True)
class Account:
    """Everything removed since training, this removal included."""

    job: RemovalJob
    model: ModelSide
    data: DataSide

    @cached_property
    def origin(self) -> RegisteredVersion | None:
        """The trained or retrained version that the parent comes from; None where it was deleted."""
        return origin_of(self.model.registry, self.model.parent)

    @cached_property
    def never_in_origin(self) -> frozenset[str]:
        """Ids that the data holds and the origin was not trained on."""
        # With the origin deleted nobody knows; counting them as removed since then errs on the side of more noise.
        return frozenset() if self.origin is None else frozenset(removed_before(self.origin))

    @cached_property
    def removed_ids(self) -> frozenset[str]:
        """Ids that the origin was trained on and that the new version lacks."""
        return (frozenset(self.data.earlier) | self.data.new_ids) - self.never_in_origin

    @property
    def parent_is_origin(self) -> bool:
        """Whether nothing was removed from the parent since it was trained."""
        return self.origin is not None and self.origin.version == self.model.parent.version

    @property
    def trained_on(self) -> int:
        """n."""
        return self.model.record.n - len(self.never_in_origin)

    @property
    def removed(self) -> int:
        """m."""
        return len(self.removed_ids)

    @cached_property
    def class_shares(self) -> dict[int, float]:
        """Class -> the share of its training samples that is removed, of the classes that lost samples.

        Empty where samples have no single class.
        """
        if self.model.record.label_kind is not LabelKind.CLASS:
            return {}
        ids, labels = self.data.table.labels_of(Split.TRAIN)
        if labels.ndim != 1:
            return {}
        trained = torch.tensor([sample not in self.never_in_origin for sample in ids])
        removed = torch.tensor([sample in self.removed_ids for sample in ids])
        return class_shares(labels[removed], labels[trained])

    def capacity(self, parent: Tensor) -> DeletionCapacity | None:
        """The accountant of the lineage; None where no privacy target is set.

        Args:
            parent: The parent's weights, (d,), by whose norm the largest noise is measured.
        """
        privacy, sensitivity = self.job.config.privacy, self.model.record.sensitivity
        if privacy is None or sensitivity is None:
            return None
        return DeletionCapacity(
            PrivacyTarget(privacy.epsilon, privacy.delta),
            Smoothness(sensitivity.lipschitz, sensitivity.hessian_lipschitz),
            strong_convexity=self.model.record.l2,
            samples=self.trained_on,
            max_noise=relative_noise(privacy.max_noise, parent),
        )

    def noised(self, theta: Tensor, parent: Tensor) -> tuple[Tensor, float]:
        """Updated weights with the noise that the privacy target asks for.

        Args:
            theta: The weights after the update, (d,).
            parent: The weights before it, (d,).

        Returns:
            The noisy weights and the noise's standard deviation. Without a target, or where the capacity is spent,
            `theta` and 0: a spent capacity is refused by the gate, with figures of the update itself.
        """
        capacity = self.capacity(parent)
        if capacity is None or capacity.spent(self.removed):
            return theta, 0.0
        sigma = capacity.sigma(self.removed)
        # Known to the store alone: who could draw the noise again could take it off. And the same in every retry.
        generator = torch.Generator().manual_seed(store_seed(self.job.store_root, ["noise", self.job.key]))
        return noisy(theta, sigma, generator), sigma

    def statement(self, parent: Tensor, update: Made, *, whole: bool) -> CapacityStatement | None:
        """What may be said of privacy after an update; None where no privacy target is set.

        Args:
            parent: The weights before the update, (d,).
            update: What it found out.
            whole: Whether it moved all parameters.
        """
        capacity, sensitivity = self.capacity(parent), self.model.record.sensitivity
        if capacity is None or sensitivity is None:
            return None
        convex = self.model.record.convex
        assumptions = Assumptions(
            convex=convex,
            smoothness_proven=sensitivity.proven,
            at_minimum=update.model_gradient <= GateLimits.gradient_floor,
            all_parameters=whole,
            exact_curvature=convex
            and update.curvature in _EXACT
            and self.job.config.curvature_samples is None
            and update.undamped,
        )
        return capacity.statement(self.removed, assumptions, noise=update.noise_sigma)


def capacity_metrics(statement: CapacityStatement) -> dict[str, float]:
    """What a run shows of the account; figures that are not finite are left to the sentence."""
    figures = {
        Metric.CAPACITY_GAMMA: statement.gamma,
        Metric.CAPACITY_REMAINING: float(max(0, statement.capacity - statement.removed)),
        Metric.NOISE_SIGMA: statement.noise,
    }
    return {name: value for name, value in figures.items() if math.isfinite(value)}
