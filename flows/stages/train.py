"""Train: a model from its specification, or again from its record without what was removed, registered as a version."""

from __future__ import annotations

import time
from collections.abc import Sequence

from oubli.components.progress import Progress
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.model_registry import UNLEARNED_ALIAS, ModelRegistry, RegisteredVersion
from oubli.registry.models.trained_models import register_trained
from oubli.registry.removals.removal_set import read_removal_set
from oubli.registry.removals.removed_ids import removed_before, store_removed
from oubli.registry.settings import Settings
from oubli.registry.storage.digests import digest_key, keyed_digest
from oubli.registry.storage.stores import store_for
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.train_spec import TrainSpec
from oubli.registry.training.training_data import TrainingData, dataset_sha256
from oubli.registry.training.training_record import Split


def train(settings: Settings, spec: TrainSpec, on_progress: Progress | None = None) -> RegisteredVersion:
    """Train `spec`'s recipe on its train split, register the model with its training record, set its alias."""
    record = spec.record(dataset_sha256(spec.dataset_uri), n=1)
    samples = TrainingData.of(record, verify=False).samples(Split.TRAIN).load()
    record = record.model_copy(update={"n": len(samples)})
    started = time.perf_counter()
    module = Recipe.of(record, settings).train(samples, on_progress)
    seconds = time.perf_counter() - started
    return register_trained(spec.model, module, record, settings=settings, alias=spec.alias, seconds=seconds)


def retrain(
    settings: Settings, model: str, removals: Sequence[str], on_progress: Progress | None = None
) -> RegisteredVersion:
    """Train the recipe of a registered version again, without `removals` and without what was removed before.

    The new version gets the alias `challenger`.
    """
    registry = ModelRegistry(settings)
    parent = registry.resolve(model)
    record = registry.training_record(parent)
    data = TrainingData.of(record)
    before = removed_before(parent)
    new_ids: tuple[str, ...] = ()
    request_ids: tuple[str, ...] = ()
    if removals:
        resolved = read_removal_set(removals).resolve(data.ids(), frozenset(before))
        new_ids, request_ids = resolved.new_ids, resolved.request_ids
    without = frozenset(before).union(new_ids)
    digest = keyed_digest(digest_key(store_for(settings.store_root), settings.store_root), sorted(without))
    started = time.perf_counter()
    module = Recipe.of(record, settings).train(data.samples(Split.TRAIN, without=without).load(), on_progress)
    seconds = time.perf_counter() - started
    return register_trained(
        parent.name,
        module,
        record,
        settings=settings,
        alias=UNLEARNED_ALIAS,
        lineage=Lineage(
            method=Method.RETRAINED,
            verdict="retrained",
            parent_version=parent.version,
            request_ids=request_ids,
            removed=len(new_ids),
            removed_in_all=len(without),
            removal_digest=digest,
        ),
        without=without,
        version_tags={
            "oubli.parent_version": parent.version,
            **store_removed(settings.store_root, f"retrained-{digest[:32]}", new_ids, before),
        },
        parent=parent,
        seconds=seconds,
    )
