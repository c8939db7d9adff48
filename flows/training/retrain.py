"""Retrain: a version's recipe run again without what was removed, registered as a version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from oubli.components.progress import Progress
from oubli.registry.models import tags
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.model_registry import UNLEARNED_ALIAS, RegisteredVersion
from oubli.registry.models.trained_models import Provenance, register_trained
from oubli.registry.removals.aliases import move_alias
from oubli.registry.removals.asked import Asked, asked
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.removal_set import RemovalSet, UnknownIds, read_removal_set
from oubli.registry.removals.removed_ids import store_removed
from oubli.registry.settings import Settings
from oubli.registry.storage.digests import json_digest
from oubli.registry.storage.keyed_digests import store_digest
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import Split

_KEY_DIGITS = 32


class Start(StrEnum):
    """What a retraining starts from."""

    COLD = "cold"
    """A fresh initialisation."""

    WARM = "warm"
    """The version's weights: quicker, and no proof that nothing of what they knew is left."""


@dataclass(frozen=True)
class Retraining:
    """How a model is trained again.

    Attributes:
        start: What it starts from.
        alias: What the new version gets.
        unknown_ids: What becomes of ids that are not in the training data.
    """

    start: Start = Start.COLD
    alias: str = UNLEARNED_ALIAS
    unknown_ids: UnknownIds = UnknownIds.ERROR


@dataclass(frozen=True)
class Retrained:
    """How a retraining ended.

    Attributes:
        version: The version that it made, now or in an earlier run.
        advice: What to do where the alias stayed at another version, and why; empty where it moved.
        found: Whether an earlier run had made it.
        removed: Samples that it takes.
        already_removed: Requested samples that an earlier version had removed.
        unknown: Requested ids that are not in the training data.
    """

    version: RegisteredVersion
    advice: str = ""
    found: bool = False
    removed: int = 0
    already_removed: int = 0
    unknown: int = 0


def retrain(
    settings: Settings,
    model: str,
    removals: Sequence[str],
    on_progress: Progress | None = None,
    how: Retraining = Retraining(),
) -> Retrained:
    """Train the recipe of a registered version again, without `removals` and without what was removed before.

    The new version gets an alias, unless that would bring removed samples back. The same retraining again finds the
    version that it made.

    Args:
        settings: Of this process.
        model: NAME, NAME@alias or NAME/version.
        removals: URIs of removal sets; may be empty.
        on_progress: Takes the fraction done.
        how: What it starts from, and which alias it gets.

    Raises:
        RemovalSetError: A removal set cannot be used, or nothing would be left to train on.
        UnknownIdsError: A removal set names ids that are not in the training data.
        RegistryError: No such model or version, or MLflow could not log the model.
    """
    request = _Request.of(settings, model, removals, how)
    earlier = request.registry.by_removal_key(request.parent.name, request.key)
    version = earlier or _new_version(request, on_progress)
    return Retrained(
        version,
        move_alias(request.registry, version, how.alias),
        found=earlier is not None,
        removed=len(request.resolved.new_ids),
        **request.counts,
    )


def as_outcome(retrained: Retrained) -> RemovalOutcome:
    """A retraining as the outcome of the removal that asked for it."""
    version = retrained.version
    return RemovalOutcome(
        status=Status.ALREADY_DONE if retrained.found else Status.RETRAINED,
        removal_key=version.tags[tags.REMOVAL_KEY],
        model=version.name,
        parent_version=version.tags[tags.PARENT_VERSION],
        version=version.version,
        run_id=version.run_id,
        removed=retrained.removed,
        already_removed=retrained.already_removed,
        unknown=retrained.unknown,
        advice=retrained.advice,
    )


@dataclass(frozen=True)
class _Request(Asked):
    """What is retrained, and without which samples."""

    start: Start

    @classmethod
    def of(cls, settings: Settings, model: str, removals: Sequence[str], how: Retraining) -> _Request:
        removal_set = read_removal_set(removals) if removals else RemovalSet(())
        return cls(**vars(asked(settings, model, removal_set, how.unknown_ids)), start=how.start)

    @property
    def without(self) -> frozenset[str]:
        return frozenset(self.before).union(self.resolved.new_ids)

    @cached_property
    def without_digest(self) -> str:
        return store_digest(self.registry.settings.store_root, sorted(self.without))

    @property
    def key(self) -> str:
        """Names the retraining as a removal key names a removal."""
        record = self.parent.tags[tags.RECORD_SHA256]
        identity = {"retrain": record, "model": self.parent.name, "without": self.without_digest}
        if self.start is Start.WARM:
            identity["start"] = self.parent.tags.get(tags.WEIGHTS_SHA256, self.parent.version)
        return json_digest(identity)[:_KEY_DIGITS]


def _new_version(request: _Request, on_progress: Progress | None) -> RegisteredVersion:
    registry, parent, record = request.registry, request.parent, request.record
    settings, resolved = registry.settings, request.resolved
    started = time.perf_counter()
    data = TrainingData.of(record, verify=False)  # `asked` has checked the digest
    samples = data.samples(Split.TRAIN, without=request.without).load()
    # A frozen backbone is the parent's, whatever the factory would make of it today.
    warm = request.start is Start.WARM
    weights = registry.weights(parent) if warm or record.trained is not None else None
    module = Recipe.of(record, settings).train(
        samples, on_progress, frozen=None if record.trained is None else weights, start=weights if warm else None
    )
    seconds = time.perf_counter() - started
    return register_trained(
        parent.name,
        module,
        record,
        settings=settings,
        alias=None,
        provenance=Provenance(
            lineage=Lineage(
                method=Method.RETRAINED_WARM if warm else Method.RETRAINED,
                verdict="retrained",
                parent_version=parent.version,
                request_ids=resolved.request_ids,
                removed=len(resolved.new_ids),
                removed_in_all=len(request.without),
                removal_digest=request.without_digest,
            ),
            parent=parent,
            without=request.without,
            version_tags={
                tags.REMOVAL_KEY: request.key,
                **parent.child_tags(),
                **store_removed(settings.store_root, request.key, resolved.new_ids, request.before),
            },
            seconds=seconds,
        ),
    )
