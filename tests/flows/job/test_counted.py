"""Which test rows count where a class or a person is removed."""

from __future__ import annotations

import blobs
import pytest

from oubli.flows.job.counted import counted_rows
from oubli.flows.job.materials import Materials
from oubli.flows.stages.fetch import fetch
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("settings", ["local"], indirect=True, scope="module")]

LABELS = blobs.table().column("label").to_pylist()
TEST = range(0, blobs.ROWS, blobs.TEST_EVERY)


def of_class(label: int, share: float) -> str:
    """A removal set of so much of a class's training samples."""
    rows = [number for number, one in enumerate(LABELS) if one == label and number % blobs.TEST_EVERY]
    return "\n".join(["sample_id", *(f"sample-{number:04d}" for number in rows[: round(share * len(rows))])])


def counted(settings: Settings, name: str, text: str, gone: float = 0.5) -> list[bool] | None:
    """Which of the 40 test rows count."""
    job = fetch(settings, "convex/1", [blobs.write_removals(settings, name, text)], UnlearnConfig())
    assert isinstance(job, RemovalJob)
    materials = Materials(settings, job)
    found = counted_rows(materials.data, materials.account, materials.data.test, gone)
    return None if found is None else found.tolist()


def test_rows_of_a_class_that_is_mostly_gone_do_not_count(settings: Settings, convex: RegisteredVersion) -> None:
    # Three in five of a class take some persons whole as well: four rows each, of which one or none is a test row.
    found = counted(settings, "most.csv", of_class(1, 0.6))
    assert found is not None
    assert not any(one for number, one in zip(TEST, found, strict=True) if LABELS[number] == 1)
    assert sum(found) >= 15


def test_rows_of_a_person_do_not_count(settings: Settings, convex: RegisteredVersion) -> None:
    # Person 3 has rows 12 to 15, of which 12 is a test row.
    found = counted(settings, "person.csv", "subject_id\nperson-003\n")
    assert found == [number != 12 for number in TEST]


def test_all_rows_count_where_nobody_is_gone(settings: Settings, convex: RegisteredVersion) -> None:
    assert counted(settings, "one.csv", "sample_id\nsample-0013\n") is None
    assert counted(settings, "stricter.csv", "sample_id\nsample-0014\n", gone=0.3) == [number != 12 for number in TEST]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_an_exact_removal_of_a_class_is_accepted(settings: Settings, convex: RegisteredVersion, share: float) -> None:
    """Accuracy on its test rows falls, as it does on retraining."""
    removals = blobs.write_removals(settings, f"class-{share}.csv", of_class(0, share))
    outcome = blobs.remove(settings, "convex/1", [removals], UnlearnConfig(steps=5))
    assert outcome.status is Status.REGISTERED, outcome.reasons
    registry = ModelRegistry(settings)
    version = registry.version("convex", outcome.version or "")
    assert "test samples of classes or subjects that are removed were left out" in version.description
    assert "accuracy was no reason to refuse" in version.description
    metrics = registry.client.get_run(version.run_id).data.metrics
    if share == 1:
        assert metrics["test_accuracy"] < metrics["test_accuracy_parent"] - 0.1
