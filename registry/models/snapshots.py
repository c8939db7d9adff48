"""The curvature that is kept with a trained version, so that a removal needs no pass over the retained samples.

    <store>/snapshots/<digest>.safetensors      tensors, and facts as JSON in the file's header

It belongs to a version and not to its training record: retrained from one record, two versions differ in it. The
version's tags point to it, or say why there is none.

It holds sums over the training samples, no sample by itself; yet what was removed is still in the sums of an older
version, and goes when that version's snapshot is deleted.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from safetensors import safe_open
from safetensors.torch import save_file

from oubli.components.curvature.snapshots.taking import restore_snapshot, take_snapshot
from oubli.components.errors import ConfigurationError, NumericalError
from oubli.components.model.frozen_head import frozen_head
from oubli.registry.errors import DigestMismatch, ObjectMissing
from oubli.registry.models import tags
from oubli.registry.storage.digests import file_digest
from oubli.registry.storage.scratch import temporary_folder
from oubli.registry.storage.stores import open_local, store_for
from oubli.registry.storage.uris import join

if TYPE_CHECKING:
    from oubli.components.curvature.secant import Secant
    from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot
    from oubli.components.model.objective import Objective
    from oubli.components.model.samples import SampleSource
    from oubli.components.progress import Progress
    from oubli.registry.models.model_registry import RegisteredVersion

_FOLDER = "snapshots"
_WEIGHTS = "weights_sha256"


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
    """Take the snapshot of a model on its training samples and put it on the store; the version tags that say so.

    Of a frozen backbone's head, the head's. A model whose curvature cannot be taken is registered all the same: its
    removals pass over the retained samples, and a tag says why.
    """
    head = frozen_head(objective, source)
    if head is not None:
        objective, source = head.objective, head.features(source, budget_bytes=budget_bytes)
    try:
        snapshot = take_snapshot(
            objective, objective.theta(), source, seed=seed, budget_bytes=budget_bytes, on_progress=on_progress
        )
    except (NumericalError, ConfigurationError) as error:
        return {tags.SNAPSHOT_MISSING: error.problem}
    return store_snapshot(store_root, dataclasses.replace(snapshot, secant=secant), weights_sha256)


def store_snapshot(store_root: str, snapshot: CurvatureSnapshot, weights_sha256: str) -> dict[str, str]:
    """Put a snapshot of the weights with this digest on the store; the version tags that point to it."""
    facts = {_WEIGHTS: weights_sha256, "snapshot": snapshot.facts()}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in snapshot.tensors().items()}
    with temporary_folder() as folder:
        path = folder / "snapshot.safetensors"
        save_file(tensors, path, metadata={"facts": json.dumps(facts, sort_keys=True)})
        digest = file_digest(path)
        uri = join(store_root, _FOLDER, f"{digest}.safetensors")
        store_for(uri).upload(path, uri)
    return {tags.SNAPSHOT: uri, tags.SNAPSHOT_SHA256: digest}


def load_snapshot(version: RegisteredVersion, weights_sha256: str) -> CurvatureSnapshot | None:
    """The version's snapshot; None where it has none, where it was deleted, or where it is of other weights.

    Raises DigestMismatch where the bytes are not those that were registered.
    """
    uri = version.tags.get(tags.SNAPSHOT)
    if uri is None:
        return None
    try:
        with open_local(uri) as path:
            if (found := file_digest(path)) != version.tags[tags.SNAPSHOT_SHA256]:
                raise DigestMismatch(
                    f"The curvature snapshot of {version.label} at {uri} has SHA-256 {found}, but "
                    f"{version.tags[tags.SNAPSHOT_SHA256]} was registered.",
                    remedy="Restore the object, or delete it: a removal then passes over the retained samples.",
                )
            with safe_open(path, framework="pt") as stored:
                facts = json.loads(stored.metadata()["facts"])
                if facts[_WEIGHTS] != weights_sha256:
                    return None
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
    except ObjectMissing:
        return None
    return restore_snapshot(tensors, facts["snapshot"])
