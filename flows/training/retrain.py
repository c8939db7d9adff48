"""Retrain: a version's recipe run again without what was removed, registered as a version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from oubli.components.progress import Progress
from oubli.registry.errors import RemovalSetError
from oubli.registry.models import tags
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.model_registry import UNLEARNED_ALIAS, ModelRegistry, RegisteredVersion
from oubli.registry.models.trained_models import Provenance, register_trained
from oubli.registry.removals.aliases import move_alias
from oubli.registry.removals.removal_set import read_removal_set
from oubli.registry.removals.removed_ids import removed_before, store_removed
from oubli.registry.settings import Settings
from oubli.registry.storage.digests import json_digest
from oubli.registry.storage.keyed_digests import store_digest
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import Split, TrainingRecord

_KEY_DIGITS = 32


@dataclass(frozen=True)
class Retrained:
    """How a retraining ended.

    Attributes:
        version: The version that it made, now or in an earlier run.
        advice: What to do where the alias `challenger` stayed at another version, and why; empty where it moved.
    """

    version: RegisteredVersion
    advice: str = ""


def retrain(settings: Settings, model: str, removals: Sequence[str], on_progress: Progress | None = None) -> Retrained:
    """Train the recipe of a registered version again, without `removals` and without what was removed before.

    The new version gets the alias `challenger`, unless that would bring removed samples back. The same retraining again
    finds the version that it made.

    Args:
        settings: Of this process.
        model: NAME, NAME@alias or NAME/version.
        removals: URIs of removal sets; may be empty.
        on_progress: Takes the fraction done.

    Raises:
        RemovalSetError: A removal set cannot be used, or nothing would be left to train on.
        UnknownIdsError: A removal set names ids that are not in the training data.
        RegistryError: No such model or version, or MLflow could not log the model.
    """
    registry = ModelRegistry(settings)
    request = _request(registry, model, removals)
    version = registry.by_removal_key(request.parent.name, request.key) or _new_version(registry, request, on_progress)
    return Retrained(version, move_alias(registry, version, UNLEARNED_ALIAS))


@dataclass(frozen=True)
class _Request:
    """What is retrained, and without which samples. before: id -> key of the earlier removal that took it."""

    parent: RegisteredVersion
    record: TrainingRecord
    data: TrainingData
    before: dict[str, str]
    new_ids: tuple[str, ...]
    request_ids: tuple[str, ...]
    without_digest: str

    @property
    def without(self) -> frozenset[str]:
        return frozenset(self.before).union(self.new_ids)

    @property
    def key(self) -> str:
        """Names the retraining as a removal key names a removal."""
        record = self.parent.tags[tags.RECORD_SHA256]
        identity = {"retrain": record, "model": self.parent.name, "without": self.without_digest}
        return json_digest(identity)[:_KEY_DIGITS]


def _request(registry: ModelRegistry, model: str, removals: Sequence[str]) -> _Request:
    parent = registry.resolve(model)
    record = registry.training_record(parent)
    data = TrainingData.of(record)
    before = removed_before(parent)
    ids = data.ids()
    new_ids: tuple[str, ...] = ()
    request_ids: tuple[str, ...] = ()
    if removals:
        resolved = read_removal_set(removals).resolve(ids, frozenset(before))
        new_ids, request_ids = resolved.new_ids, resolved.request_ids
    without = sorted({*before, *new_ids})
    if len(without) >= len(ids):
        raise RemovalSetError(
            f"The removal set takes all samples that {parent.label} still holds.", remedy="Delete the model instead."
        )
    digest = store_digest(registry.settings.store_root, without)
    return _Request(parent, record, data, before, new_ids, request_ids, digest)


def _new_version(registry: ModelRegistry, request: _Request, on_progress: Progress | None) -> RegisteredVersion:
    settings, parent, record = registry.settings, request.parent, request.record
    started = time.perf_counter()
    samples = request.data.samples(Split.TRAIN, without=request.without).load()
    # A frozen backbone is the parent's, whatever the factory would make of it today.
    frozen = registry.weights(parent) if record.trained is not None else None
    module = Recipe.of(record, settings).train(samples, on_progress, frozen=frozen)
    seconds = time.perf_counter() - started
    return register_trained(
        parent.name,
        module,
        record,
        settings=settings,
        alias=None,
        provenance=Provenance(
            lineage=Lineage(
                method=Method.RETRAINED,
                verdict="retrained",
                parent_version=parent.version,
                request_ids=request.request_ids,
                removed=len(request.new_ids),
                removed_in_all=len(request.without),
                removal_digest=request.without_digest,
            ),
            parent=parent,
            without=request.without,
            version_tags={
                tags.REMOVAL_KEY: request.key,
                **parent.child_tags(),
                **store_removed(settings.store_root, request.key, request.new_ids, request.before),
            },
            seconds=seconds,
        ),
    )
