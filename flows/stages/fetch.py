"""Fetch: find model, record, data and removal set; name the removal; keep the parent's weights in the work area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.flows.job.facts import REMOVED_IDS, WEIGHTS, FetchFacts, Stage
from oubli.flows.job.finished import finished_outcome
from oubli.registry.errors import RemovalSetError, TrainingDataError
from oubli.registry.models import tags
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.weights import save_weights, weights_digest
from oubli.registry.removals.job import RemovalJob, removal_key
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.removal_set import ResolvedRemoval, read_removal_set
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.keyed_digests import store_digest
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import Split


@dataclass(frozen=True)
class _Request:
    """A removal set resolved against the version it is to be removed from.

    Attributes:
        before: What earlier versions removed, each id with the key of the removal that took it.
    """

    registry: ModelRegistry
    parent: RegisteredVersion
    recipe: Recipe
    before: dict[str, str]
    resolved: ResolvedRemoval

    @property
    def counts(self) -> dict[str, int]:
        """What was asked for and cannot be removed, as facts and outcomes name it."""
        return {"already_removed": len(self.resolved.already_removed), "unknown": len(self.resolved.unknown_rows)}


def check_removals(settings: Settings, model: str, removals: Sequence[str], config: UnlearnConfig) -> None:
    """Check a request as `fetch` does, without starting it.

    For removal files that are looked at one by one before they are taken together. Raises what `fetch` raises.
    """
    _request(settings, model, removals, config)


def fetch(
    settings: Settings, model: str, removals: Sequence[str], config: UnlearnConfig
) -> RemovalJob | RemovalOutcome:
    """Find everything that can be wrong with a request, before anything is computed.

    Args:
        settings: Of this process.
        model: NAME, NAME@alias or NAME/version.
        removals: URIs of removal sets.
        config: How the removal is done.

    Returns:
        The job to do, or the outcome where this very removal has been done, was refused, or leaves nothing to do.

    Raises:
        ConfigurationError: The model's name is malformed, or a privacy target has no sensitivity to go by.
        RegistryError: No such model or version, or one that cannot be read.
        DataError: The removal set, the training data or the training record is not what it should be.
        StoreError: The object store did not do what was asked.
    """
    request = _request(settings, model, removals, config)
    if not request.resolved.new_ids:
        return _nothing_left(request)
    weights = request.registry.weights(request.parent)
    request.recipe.module(weights)  # fails here, rather than after an hour, if the factory does not fit
    job = _job(settings, request, weights, config)
    if (earlier := finished_outcome(request.registry, job)) is not None:
        # Its own counts were another request's, which may have asked for more.
        return earlier.model_copy(update={"removed": len(request.resolved.new_ids), **request.counts})

    def write(folder: Path) -> FetchFacts:
        save_weights(weights, folder / WEIGHTS)
        pq.write_table(pa.table({"sample_id": list(request.resolved.new_ids)}), folder / REMOVED_IDS)
        return FetchFacts(
            request_ids=request.resolved.request_ids,
            removed=len(request.resolved.new_ids),
            removed_before=len(request.before),
            **request.counts,
        )

    job.area.run(Stage.FETCH, FetchFacts, write)
    return job


def _nothing_left(request: _Request) -> RemovalOutcome:
    """The outcome where no requested sample is left in the parent."""
    registry, parent, removed = request.registry, request.parent, request.resolved.already_removed
    keys = {request.before[sample] for sample in removed}
    # Where one removal took them all, the version that it made; else the one that lacks them all.
    made = registry.by_removal_key(parent.name, min(keys)) if len(keys) == 1 else None
    done = made or parent
    return RemovalOutcome(
        status=Status.ALREADY_DONE if removed else Status.NOTHING_TO_REMOVE,
        removal_key=done.tags.get(tags.REMOVAL_KEY, ""),
        model=done.name,
        parent_version=done.tags.get(tags.PARENT_VERSION, done.version),
        version=done.version,
        run_id=done.run_id,
        **request.counts,
    )


def _job(settings: Settings, request: _Request, weights: dict[str, Tensor], config: UnlearnConfig) -> RemovalJob:
    parent = request.parent
    removal_digest = store_digest(settings.store_root, request.resolved.new_ids)
    return RemovalJob(
        key=removal_key(
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
