"""What identifies a removal, and where it keeps its work."""

from __future__ import annotations

from typing import Any

import pytest

from oubli.registry.removals.job import RemovalJob, removal_key
from oubli.registry.removals.unlearn_config import UnlearnConfig

IDENTITY: dict[str, Any] = {
    "model": "digits",
    "parent_version": "1",
    "weights_sha256": "ab" * 32,
    "record_sha256": "ef" * 32,
    "removal_digest": "cd" * 32,
    "config": UnlearnConfig(),
}


def test_a_removal_has_a_name_of_128_bits() -> None:
    name = removal_key(**IDENTITY)
    assert name == removal_key(**IDENTITY)
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", "wine"),
        ("parent_version", "2"),
        ("weights_sha256", "00" * 32),
        ("record_sha256", "00" * 32),
        ("removal_digest", "00" * 32),
        ("config", UnlearnConfig(seed=1)),
    ],
)
def test_each_part_of_its_identity_changes_the_name(part: str, value: object) -> None:
    assert removal_key(**IDENTITY | {part: value}) != removal_key(**IDENTITY)
    assert {"model", "parent_version", "weights_sha256", "record_sha256", "removal_digest", "config"} == set(IDENTITY)


@pytest.mark.parametrize("root", ["s3://bucket/prefix", "file:///data/a%20store", "/data/store"])
def test_a_job_survives_json_and_finds_its_work_area(root: str) -> None:
    job = RemovalJob(
        key="0123",
        store_root=root,
        model="digits",
        parent_version="1",
        removal_digest="cd" * 32,
        config=UnlearnConfig(steps=3),
    )
    assert RemovalJob.model_validate_json(job.model_dump_json()) == job
    assert job.area.root == f"{root}/work/0123"
