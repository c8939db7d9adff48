"""Train: a model from its specification, or again from its record without what was removed, registered as a version."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import nn

from oubli.components.progress import Progress
from oubli.components.reference.secant import LastEpochs
from oubli.registry.errors import RemovalSetError
from oubli.registry.models import tags
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.model_registry import UNLEARNED_ALIAS, ModelRegistry, RegisteredVersion
from oubli.registry.models.trained_models import Provenance, register_trained
from oubli.registry.removals.aliases import move_alias
from oubli.registry.removals.removal_set import read_removal_set
from oubli.registry.removals.removed_ids import removed_before, removed_from_any, store_removed
from oubli.registry.settings import Settings
from oubli.registry.storage.digests import json_digest
from oubli.registry.storage.keyed_digests import store_digest
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.train_spec import TrainSpec
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import Split
from oubli.registry.training.writing import dataset_sha256


def train(settings: Settings, spec: TrainSpec, on_progress: Progress | None = None) -> RegisteredVersion:
    """Train `spec`'s recipe on its train split, register the model with its training record, set its alias.

    What an earlier version of the same model has removed is left out: it must not come back with a new training.
    """
    record = spec.record(dataset_sha256(spec.dataset_uri), n=1)
    data = TrainingData.of(record, verify=False)
    ids = data.ids().known
    gone = {each: how for each, how in removed_from_any(ModelRegistry(settings), spec.model).items() if each in ids}
    record = record.model_copy(update={"n": len(ids)})
    recipe = Recipe.of(record, settings)
    samples = data.samples(Split.TRAIN, without=frozenset(gone)).load()
    watched: list[LastEpochs] = []

    def watch(module: nn.Module) -> Callable[[int], None]:
        watched.append(LastEpochs(module, record.trained))
        return watched[0].record

    started = time.perf_counter()
    module = recipe.train(samples, on_progress, watch=watch if spec.secant else None)
    seconds = time.perf_counter() - started
    return register_trained(
        spec.model,
        module,
        record,
        settings=settings,
        alias=spec.alias,
        provenance=Provenance(
            lineage=Lineage(method=Method.TRAINED, verdict="trained", removed_in_all=len(gone)),
            without=frozenset(gone),
            version_tags=store_removed(settings.store_root, "", (), gone) if gone else {},
            seconds=seconds,
            secant=watched[0].secant(samples, recipe.loss) if watched else None,
        ),
        snapshot=spec.snapshot,
    )


def retrain(
    settings: Settings, model: str, removals: Sequence[str], on_progress: Progress | None = None
) -> RegisteredVersion:
    """Train the recipe of a registered version again, without `removals` and without what was removed before.

    The new version gets the alias `challenger`. The same retraining again finds the version that it made. Raises
    RemovalSetError where nothing would be left to train on.
    """
    registry = ModelRegistry(settings)
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
    without = frozenset(before).union(new_ids)
    if len(without) >= len(ids):
        raise RemovalSetError(
            f"The removal set takes all samples that {parent.label} still holds.", remedy="Delete the model instead."
        )
    digest = store_digest(settings.store_root, sorted(without))
    outcome = json_digest({"retrain": parent.tags[tags.RECORD_SHA256], "model": parent.name, "without": digest})[:32]
    if (earlier := registry.by_removal_key(parent.name, outcome)) is not None:
        move_alias(registry, earlier, UNLEARNED_ALIAS)
        return earlier
    started = time.perf_counter()
    samples = data.samples(Split.TRAIN, without=without).load()
    # A frozen backbone is the parent's, whatever the factory would make of it today.
    frozen = registry.weights(parent) if record.trained is not None else None
    module = Recipe.of(record, settings).train(samples, on_progress, frozen=frozen)
    seconds = time.perf_counter() - started
    version = register_trained(
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
                request_ids=request_ids,
                removed=len(new_ids),
                removed_in_all=len(without),
                removal_digest=digest,
            ),
            parent=parent,
            without=without,
            version_tags={
                tags.REMOVAL_KEY: outcome,
                **parent.child_tags(),
                **store_removed(settings.store_root, outcome, new_ids, before),
            },
            seconds=seconds,
        ),
    )
    move_alias(registry, version, UNLEARNED_ALIAS)
    return version
