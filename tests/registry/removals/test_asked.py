"""Requests resolved against a version and its training data: what is asked, what is gone, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records import training_record

from oubli.registry.errors import DigestMismatch, ModelNotFound, RemovalSetError, UnknownIdsError
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.models.registration import store_record
from oubli.registry.removals.asked import Asked, asked, check_removals
from oubli.registry.removals.removal_set import RemovalRow, RemovalSet, RowReference, UnknownIds
from oubli.registry.removals.removed_ids import store_removed
from oubli.registry.settings import Settings
from oubli.registry.storage.local_store import local_path
from oubli.registry.training.writing import write_training_data

TRAINING = [f"sample-{number}" for number in range(6)]
GONE = tuple(TRAINING[:2])
TABLE = pa.table(
    {
        "sample_id": [*TRAINING, "held-out"],
        "values": [[0.0, 1.0]] * 7,
        "label": pa.array([0, 1, 0, 1, 0, 1, 0], pa.int32()),
        "split": ["train"] * 6 + ["test"],
    }
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], str]) -> Settings:
    """The model `digits`, whose version 1 lacks two samples of its data."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_database(home))
        settings = Settings(home=home)
        _ = settings.tracking_uri  # read once
    record = training_record(dataset=write_training_data(TABLE, str(home / "data.parquet")), n=6)
    tags = store_record(settings.store_root, record) | store_removed(settings.store_root, "key", GONE, {})
    client = ModelRegistry(settings).client
    client.create_registered_model("digits")
    client.create_model_version("digits", str(home), tags=tags)
    return settings


def ask(settings: Settings, *ids: str, unknown: UnknownIds = UnknownIds.ERROR, verify: bool = True) -> Asked:
    rows = [RemovalRow(RowReference("a.csv", row), each, None, None, None, None) for row, each in enumerate(ids, 1)]
    return asked(settings, "digits/1", RemovalSet(tuple(rows)), unknown, verify=verify)


def test_what_is_asked_for_and_what_is_gone_already(settings: Settings) -> None:
    found = ask(settings, "sample-3", GONE[0], "nobody", unknown=UnknownIds.REPORT)
    assert found.resolved.new_ids == ("sample-3",)
    assert found.before == dict.fromkeys(GONE, "key")
    assert found.counts == {"already_removed": 1, "unknown": 1}
    assert (found.parent.label, found.record.n) == ("digits/1", 6)


def test_nothing_may_be_asked_for(settings: Settings) -> None:
    assert ask(settings).resolved.new_ids == ()


def test_ids_that_are_not_there_are_an_error_by_default(settings: Settings) -> None:
    with pytest.raises(UnknownIdsError, match=r"1 ids are not in the training data: a\.csv row 2"):
        ask(settings, "sample-3", "nobody")


def test_all_that_is_left_is_too_much(settings: Settings) -> None:
    with pytest.raises(RemovalSetError, match="takes all 4 samples that digits/1 still holds"):
        ask(settings, *(each for each in TRAINING if each not in GONE))


def test_a_check_says_what_is_wrong_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    removals = tmp_path / "removals.csv"
    removals.write_text("sample_id\nsample-3\n")
    check_removals(settings, "digits/1", [str(removals)], UnknownIds.ERROR)
    with pytest.raises(ModelNotFound, match="has no version 2"):
        check_removals(settings, "digits/2", [str(removals)], UnknownIds.ERROR)
    with pytest.raises(RemovalSetError, match="No removal set was given"):
        check_removals(settings, "digits/1", [], UnknownIds.ERROR)


def test_altered_data_is_found_where_the_digest_is_checked(settings: Settings) -> None:
    path = local_path(ask(settings).record.dataset.uri)
    whole = path.read_bytes()
    pq.write_table(TABLE.slice(2), path)
    try:
        assert ask(settings, "sample-3", verify=False).resolved.new_ids == ("sample-3",)
        with pytest.raises(DigestMismatch):
            ask(settings, "sample-3")
    finally:
        path.write_bytes(whole)
