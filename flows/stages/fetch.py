"""Fetch: find model, record, data and removal set; name the outcome; keep the parent's weights in the work area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from oubli.components.errors import ConfigurationError
from oubli.flows.stages.register import finished_outcome
from oubli.registry.errors import RemovalSetError, TrainingDataError
from oubli.registry.models import tags
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.weights import save_weights, weights_digest
from oubli.registry.removals.removal_job import RemovalJob, RemovalOutcome, Status, UnlearnConfig, outcome_digest
from oubli.registry.removals.removal_set import ResolvedRemoval, read_removal_set
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.settings import Settings
from oubli.registry.storage.keyed_digests import store_digest
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import Split


@dataclass(frozen=True)
class _Request:
    """A removal set resolved against the version it is to be removed from."""

    registry: ModelRegistry
    parent: RegisteredVersion
    recipe: Recipe
    before: dict[str, str]
    resolved: ResolvedRemoval


def check_removals(settings: Settings, model: str, removals: Sequence[str], config: UnlearnConfig) -> None:
    """Raise what `fetch` would: for removal files that are looked at one by one before they are taken together."""
    _request(settings, model, removals, config)


def fetch(
    settings: Settings, model: str, removals: Sequence[str], config: UnlearnConfig
) -> RemovalJob | RemovalOutcome:
    """The job to do, or the outcome where this very removal has been done, refused, or leaves nothing to do.

    Everything that can be wrong with the request is found here, before anything is computed.
    """
    request = _request(settings, model, removals, config)
    registry, parent, resolved = request.registry, request.parent, request.resolved
    counts = {"already_removed": len(resolved.already_removed), "unknown": len(resolved.unknown_rows)}

    if not resolved.new_ids:
        outcomes = {request.before[each] for each in resolved.already_removed}
        # Where one removal took them all, the version that it made; else the one that lacks them all.
        made = registry.by_removal_key(parent.name, min(outcomes)) if len(outcomes) == 1 else None
        done = made or parent
        return RemovalOutcome(
            status=Status.ALREADY_DONE if resolved.already_removed else Status.NOTHING_TO_REMOVE,
            outcome=done.tags.get(tags.REMOVAL_KEY, ""),
            model=done.name,
            parent_version=done.tags.get(tags.PARENT_VERSION, done.version),
            version=done.version,
            run_id=done.run_id,
            **counts,
        )

    weights = registry.weights(parent)
    request.recipe.module(weights)  # fails here, rather than after an hour, if the factory does not fit
    removal_digest = store_digest(settings.store_root, resolved.new_ids)
    job = RemovalJob(
        outcome=outcome_digest(
            model=parent.name,
            parent_version=parent.version,
            weights_sha256=weights_digest(weights),
            record_sha256=parent.tags[tags.RECORD_SHA256],
            removal_digest=removal_digest,
            config=config,
        ),
        store_root=settings.store_root,
        model=parent.name,
        parent_version=parent.version,
        removal_digest=removal_digest,
        config=config,
    )
    if (earlier := finished_outcome(registry, job)) is not None:
        # Its own counts were another request's, which may have asked for more.
        return earlier.model_copy(update={"removed": len(resolved.new_ids), **counts})

    def write(folder: Path) -> dict[str, Any]:
        save_weights(weights, folder / "weights.safetensors")
        pq.write_table(pa.table({"sample_id": list(resolved.new_ids)}), folder / "removed.parquet")
        return {
            "request_ids": list(resolved.request_ids),
            "removed": len(resolved.new_ids),
            "removed_before": len(request.before),
            **counts,
        }

    job.area.run("fetch", write)
    return job


def _request(settings: Settings, model: str, removals: Sequence[str], config: UnlearnConfig) -> _Request:
    registry = ModelRegistry(settings)
    parent = registry.resolve(model)
    recipe = Recipe.of(registry.training_record(parent), settings)
    removal_set = read_removal_set(removals)
    before = removed_before(parent)
    data = TrainingData.of(recipe.record)
    ids = data.ids()
    resolved = removal_set.resolve(ids, frozenset(before), unknown=config.unknown_ids)
    if len(resolved.new_ids) + len(before) >= len(ids):
        raise RemovalSetError(
            f"The removal set takes all {len(ids) - len(before)} samples that {parent.label} still holds.",
            remedy="Delete the model instead: nothing would be left to keep.",
        )
    if config.privacy is not None and recipe.record.sensitivity is None:
        raise ConfigurationError(
            f"privacy is set, but the training record of {parent.label} has no sensitivity to scale noise by.",
            remedy="Attach a record with a `sensitivity`, estimated or proven, or leave privacy out.",
        )
    if len(data.samples(Split.TEST)) == 0:
        raise TrainingDataError(
            f"The training data of {parent.label} has no rows whose {recipe.record.dataset.split.column} is "
            f"{recipe.record.dataset.split.test!r}, so no update could be judged.",
            remedy="Add held-out rows to the dataset and attach a record that names it.",
        )
    return _Request(registry, parent, recipe, before, resolved)
