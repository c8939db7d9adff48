"""Fetch: find model, record, data and removal set; name the removal; keep the parent's weights in the work area."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.model.per_sample import require_per_sample
from oubli.flows.job.facts import REMOVED_IDS, WEIGHTS, FetchFacts, Stage
from oubli.flows.job.finished import finished_outcome
from oubli.flows.job.request import Request, resolve_request
from oubli.flows.job.ways import audited
from oubli.registry.models import tags
from oubli.registry.models.weights import save_weights, weights_digest
from oubli.registry.removals.job import RemovalJob, removal_key
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.unlearn_config import UnlearnConfig, Way
from oubli.registry.settings import Settings
from oubli.registry.storage.keyed_digests import store_digest
from oubli.registry.training.training_record import Split


def fetch(
    settings: Settings, model: str, removals: Sequence[str], config: UnlearnConfig
) -> RemovalJob | RemovalOutcome:
    """Find everything that can be wrong with a request, before anything is computed.

    Args:
        settings: Of this process.
        model: NAME, NAME@alias or NAME/version.
        removals: URIs of removal sets.
        config: How the removal is done; of several ways, the first that the model admits.

    Returns:
        The job to do, or the outcome where this very removal has been done, was refused, or leaves nothing to do.

    Raises:
        ConfigurationError: The model's name is malformed, it does not admit the way that is asked for, or a privacy
            target has no sensitivity to go by, or the model or its loss has no per-sample form.
        RegistryError: No such model or version, or one that cannot be read.
        DataError: The removal set, the training data or the training record is not what it should be.
        StoreError: The object store did not do what was asked.
    """
    request = resolve_request(settings, model, removals, config)
    if not request.resolved.new_ids:
        return _nothing_left(request)
    weights = request.registry.weights(request.parent)
    # What does not fit fails here, rather than after an hour.
    objective = request.recipe.objective(request.recipe.module(weights))
    require_per_sample(objective, objective.theta(), request.data.samples(Split.TRAIN))
    if request.ways[0] is Way.RETRAIN:
        raise ConfigurationError(
            "A retraining is no removal with stages.", remedy="Run the flow `unlearn`, or `oubli train --from NAME`."
        )
    job = _job(settings, request, weights, config.for_way(request.ways[0]))
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
            held_out_from=request.held_out.source,
            held_out=0 if request.held_out.held_out is None else len(request.held_out.held_out),
            **request.counts,
        )

    job.area.run(Stage.FETCH, FetchFacts, write)
    return job


def _nothing_left(request: Request) -> RemovalOutcome:
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


def _job(settings: Settings, request: Request, weights: dict[str, Tensor], config: UnlearnConfig) -> RemovalJob:
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
        audited=audited(request.recipe),
    )
