"""Curvature factors on the store: what comes back is what was put there."""

from __future__ import annotations

from pathlib import Path

import pytest
import scoped_network
import torch
from torch import nn

from oubli.components.curvature.factors import FactorForm
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.registry.errors import DigestMismatch
from oubli.registry.models.factors import factor_tags, keep_factor, load_factor
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.storage.stores import store_for

TAGS = {"oubli.factor", "oubli.factor_sha256"}


def samples() -> Samples:
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(30, 6, generator=generator), torch.arange(30) % 3)


def kept(root: str, objective: Objective) -> dict[str, str]:
    return keep_factor(root, objective, samples(), budget_bytes=2**26)


def linear() -> Objective:
    return Objective(build_seeded(lambda: nn.Linear(6, 3), 1), cross_entropy, 1e-2)


def version(tags: dict[str, str]) -> RegisteredVersion:
    return RegisteredVersion("digits", "1", None, tags, "")


def test_a_factor_comes_back_as_it_was_stored(root: str) -> None:
    tags = kept(root, linear())
    assert set(tags) == TAGS
    back = load_factor(version(tags))
    assert back is not None
    assert (back.form, back.d) == (FactorForm.DENSE, 21)
    again = load_factor(version(kept(root, linear())))
    assert again is not None
    assert torch.equal(back.solve(torch.ones(21)), again.solve(torch.ones(21)))


def test_of_a_frozen_backbone_it_is_the_heads(tmp_path: Path) -> None:
    whole = Objective(build_seeded(scoped_network.build, 1), cross_entropy, 1e-2, trained=("head",))
    factor = load_factor(version(kept(str(tmp_path), whole)))
    assert factor is not None
    assert factor.d == whole.space.d


def test_versions_point_to_it_and_to_nothing_where_there_is_none(tmp_path: Path) -> None:
    tags = kept(str(tmp_path), linear())
    assert factor_tags(version({**tags, "oubli.method": "trained"})) == tags
    assert factor_tags(version({})) == {}
    assert load_factor(version({})) is None
    store_for(str(tmp_path)).delete(tags["oubli.factor"])
    assert load_factor(version(tags)) is None


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    tags = kept(str(tmp_path), linear())
    with pytest.raises(DigestMismatch, match="curvature factor of digits/1"):
        load_factor(version({**tags, "oubli.factor_sha256": "0" * 64}))


def test_a_loss_that_is_not_convex_leaves_its_reason(tmp_path: Path) -> None:
    def curves_down(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return -100 * (outputs**2).sum(1)

    broken = Objective(build_seeded(lambda: nn.Linear(6, 3), 1), curves_down, 1e-2)
    assert "not positive definite" in kept(str(tmp_path), broken)["oubli.snapshot_missing"]
