"""The curvature that is kept with a trained version, so that a removal needs no pass over the retained samples.

    <store>/snapshots/<digest>.safetensors      tensors, and facts as JSON in the file's header

It belongs to a version and not to its training record: retrained from one record, two versions differ in it. The
version's tags point to it, or say why there is none.

It holds sums over the training samples, no sample by itself; yet what was removed is still in the sums of an older
version, and goes when that version's snapshot is deleted.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from oubli.components.curvature.snapshots.taking import restore_snapshot, take_snapshot
from oubli.components.errors import ConfigurationError, NumericalError
from oubli.components.model.frozen_head import on_head
from oubli.registry.models import tags
from oubli.registry.models.kept_files import KeptFile
from oubli.registry.models.kept_tensors import load_tensors, store_tensors

if TYPE_CHECKING:
    from oubli.components.curvature.secant import Secant
    from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot
    from oubli.components.model.objective import Objective
    from oubli.components.model.samples import SampleSource
    from oubli.components.progress import Progress
    from oubli.registry.models.model_registry import RegisteredVersion

_WEIGHTS = "weights_sha256"
_FILE = KeptFile(
    "curvature snapshot",
    "snapshots",
    tags.SNAPSHOT,
    tags.SNAPSHOT_SHA256,
    without_it="a removal then passes over the retained samples",
)


def keep_snapshot(
    store_root: str,
    objective: Objective,
    source: SampleSource,
    weights_sha256: str,
    *,
    seed: int,
    budget_bytes: int,
    secant: Secant | None = None,
    on_progress: Progress | None = None,
) -> dict[str, str]:
    """Take the snapshot of a model on its training samples, and put it on the store.

    Of a frozen backbone's head, the head's. A model whose curvature cannot be taken is registered all the same: its
    removals pass over the retained samples, and a tag says why.

    Args:
        store_root: URI of the store.
        objective: The model, at the weights that training ended with.
        source: The training samples.
        weights_sha256: Digest of the model's weights.
        seed: Of drawn labels and samples.
        budget_bytes: What one chunk's temporaries, and a head's features, may take.
        secant: Of the last epochs of training, to be kept along.
        on_progress: Told the fraction done.

    Returns:
        The version tags that point to the snapshot, or say why there is none.
    """
    objective, source = on_head(objective, source, budget_bytes=budget_bytes)
    try:
        snapshot = take_snapshot(
            objective, objective.theta(), source, seed=seed, budget_bytes=budget_bytes, on_progress=on_progress
        )
    except (NumericalError, ConfigurationError) as error:
        return {tags.SNAPSHOT_MISSING: error.problem}
    return store_snapshot(store_root, dataclasses.replace(snapshot, secant=secant), weights_sha256)


def store_snapshot(store_root: str, snapshot: CurvatureSnapshot, weights_sha256: str) -> dict[str, str]:
    """Put a snapshot on the store.

    Args:
        store_root: URI of the store.
        snapshot: What is stored.
        weights_sha256: Digest of the weights that it was taken at.

    Returns:
        The version tags that point to it.
    """
    facts = {_WEIGHTS: weights_sha256, "snapshot": snapshot.facts()}
    return store_tensors(_FILE, store_root, snapshot.tensors(), facts)


def load_snapshot(version: RegisteredVersion, weights_sha256: str) -> CurvatureSnapshot | None:
    """The snapshot of a version.

    Args:
        version: Whose tags point to it.
        weights_sha256: Digest of the weights that it must be of.

    Returns:
        None where the version has none, where it was deleted, or where it is of other weights.

    Raises:
        DigestMismatch: The bytes are not those that were registered.
        ConfigurationError: They hold no snapshot.
    """
    kept = load_tensors(_FILE, version)
    if kept is None or kept.facts[_WEIGHTS] != weights_sha256:
        return None
    return restore_snapshot(kept.tensors, kept.facts["snapshot"])
