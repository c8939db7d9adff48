"""Curvature snapshots on the store: what comes back is what was put there, and only for the weights it is of."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import scoped_network
import torch
from safetensors import safe_open
from torch import nn

from oubli.components.curvature.snapshots.dense import DenseSnapshot
from oubli.components.curvature.snapshots.snapshot import SnapshotForm
from oubli.components.curvature.snapshots.taking import take_snapshot
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.registry.errors import DigestMismatch
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.models.snapshots import keep_snapshot, load_snapshot, store_snapshot
from oubli.registry.storage.stores import store_for

WEIGHTS = "ab" * 32


def samples() -> Samples:
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(30, 6, generator=generator), torch.arange(30) % 3)


def objective(trained: tuple[str, ...] | None = None) -> Objective:
    return Objective(build_seeded(scoped_network.build, 1), cross_entropy, 1e-2, trained=trained)


def version(tags: dict[str, str]) -> RegisteredVersion:
    return RegisteredVersion("digits", "1", None, tags, "")


@pytest.mark.parametrize("form", SnapshotForm)
def test_a_snapshot_comes_back_as_it_was_stored(root: str, form: SnapshotForm) -> None:
    one = objective()
    taken = take_snapshot(one, one.theta(), samples(), form=form, seed=3)
    tags = store_snapshot(root, taken, WEIGHTS)
    back = load_snapshot(version(tags), WEIGHTS)
    assert back is not None
    assert back.facts() == taken.facts()
    assert set(back.tensors()) == set(taken.tensors())
    for name, value in taken.tensors().items():
        assert torch.equal(back.tensors()[name], value), name


def test_a_kept_snapshot_is_of_the_models_own_curvature(tmp_path: Path) -> None:
    one = objective()
    tags = keep_snapshot(str(tmp_path), one, samples(), WEIGHTS, seed=0, budget_bytes=2**26)
    assert set(tags) == {"oubli.snapshot", "oubli.snapshot_sha256"}
    kept = load_snapshot(version(tags), WEIGHTS)
    assert kept is not None
    removed = samples().select(torch.arange(4))
    rest = samples().select(torch.arange(4, 30))
    fresh = DenseSnapshot.take(one, one.theta(), rest)
    found = kept.without(Restriction(one, one.theta(), None), removed).dense()
    torch.testing.assert_close(found, fresh.matrix / len(rest), rtol=1e-9, atol=1e-10)


def test_of_a_frozen_backbone_the_heads_is_kept(tmp_path: Path) -> None:
    one = objective(trained=("head",))
    tags = keep_snapshot(str(tmp_path), one, samples(), WEIGHTS, seed=0, budget_bytes=2**26)
    kept = load_snapshot(version(tags), WEIGHTS)
    assert kept is not None
    whole = DenseSnapshot.take(one, one.theta(), samples())
    torch.testing.assert_close(kept.gradient, whole.gradient, rtol=1e-9, atol=1e-10)
    assert isinstance(kept, DenseSnapshot)
    torch.testing.assert_close(kept.matrix, whole.matrix, rtol=1e-9, atol=1e-10)


def test_a_snapshot_serves_no_other_weights(tmp_path: Path) -> None:
    one = objective()
    tags = keep_snapshot(str(tmp_path), one, samples(), WEIGHTS, seed=0, budget_bytes=2**26)
    assert load_snapshot(version(tags), "cd" * 32) is None


def test_no_snapshot_is_none(tmp_path: Path) -> None:
    assert load_snapshot(version({}), WEIGHTS) is None
    one = objective()
    tags = keep_snapshot(str(tmp_path), one, samples(), WEIGHTS, seed=0, budget_bytes=2**26)
    # Snapshots may be deleted at any time.
    store_for(tags["oubli.snapshot"]).delete(tags["oubli.snapshot"])
    assert load_snapshot(version(tags), WEIGHTS) is None


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    one = objective()
    tags = keep_snapshot(str(tmp_path), one, samples(), WEIGHTS, seed=0, budget_bytes=2**26)
    uri = tags["oubli.snapshot"]
    data = bytearray(store_for(uri).read(uri))
    data[-1] ^= 1
    store_for(uri).write(uri, bytes(data))
    with pytest.raises(DigestMismatch, match="snapshot of digits/1"):
        load_snapshot(version(tags), WEIGHTS)


def test_a_model_without_one_says_why(tmp_path: Path) -> None:
    one = objective()
    broken = dataclasses.replace(one, module=_with_nan(one.module))
    tags = keep_snapshot(str(tmp_path), broken, samples(), WEIGHTS, seed=0, budget_bytes=2**26)
    assert set(tags) == {"oubli.snapshot_missing"}
    assert "NaN" in tags["oubli.snapshot_missing"]
    assert not list(tmp_path.iterdir())


def test_the_facts_are_in_the_files_header(tmp_path: Path) -> None:
    one = objective()
    uri = keep_snapshot(str(tmp_path), one, samples(), WEIGHTS, seed=0, budget_bytes=2**26)["oubli.snapshot"]
    with safe_open(uri, framework="pt") as stored:
        facts = json.loads(stored.metadata()["facts"])
    assert facts["weights_sha256"] == WEIGHTS
    assert facts["snapshot"]["n"] == 30


def _with_nan(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        module.head.weight[0, 0] = float("nan")
    return module
