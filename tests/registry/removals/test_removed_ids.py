"""The list of removed samples: cumulative, found through the version's tags, and never trusted once altered."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pyarrow.parquet as pq
import pytest

from oubli.registry.errors import DigestMismatch, ObjectMissing
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.removals.removed_ids import removed_before, store_removed
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.storage.stores import store_for


def version(tags: Mapping[str, str]) -> RegisteredVersion:
    return RegisteredVersion(name="digits", version="2", run_id=None, tags=tags, description="")


def test_a_trained_version_lost_nothing() -> None:
    assert removed_before(version({"oubli.method": "trained"})) == {}


def test_ids_come_back_with_the_key_of_the_removal_that_took_them(root: str) -> None:
    first = store_removed(root, "key-1", ["b", "a", "é"], {})
    assert removed_before(version(first)) == {"a": "key-1", "b": "key-1", "é": "key-1"}
    second = store_removed(root, "key-2", ["c"], removed_before(version(first)))
    assert removed_before(version(second)) == {"a": "key-1", "b": "key-1", "c": "key-2", "é": "key-1"}
    # The parent's list is as it was.
    assert len(removed_before(version(first))) == 3


def test_a_list_may_be_empty(root: str) -> None:
    assert removed_before(version(store_removed(root, "key", [], {}))) == {}


def test_the_list_is_a_table_that_others_can_read(root: str) -> None:
    tags = store_removed(root, "key", ["b", "a"], {"c": "earlier"})
    data = store_for(root).read(tags["oubli.removed"])
    assert pq.read_table(io.BytesIO(data)).to_pylist() == [
        {"sample_id": "a", "removal_key": "key"},
        {"sample_id": "b", "removal_key": "key"},
        {"sample_id": "c", "removal_key": "earlier"},
    ]
    # The digest that MLflow shows is keyed: the list of one removed sample could be guessed from a plain one.
    assert bytes_digest(data) not in str(tags)


def test_the_tags_hold_no_ids(root: str) -> None:
    tags = store_removed(root, "key", ["a-secret-id"], {})
    assert set(tags) == {"oubli.removed", "oubli.removed_digest"}
    assert "a-secret-id" not in str(tags)


def test_writing_it_again_gives_the_same_list(root: str) -> None:
    # A retry of the registration, with its ids in another order.
    assert store_removed(root, "key", ["a", "b"], {}) == store_removed(root, "key", ["b", "a"], {})


def test_another_list_never_replaces_one(root: str) -> None:
    # The same ids, taken by another removal.
    first, second = (store_removed(root, key, ["a"], {}) for key in ("key-1", "key-2"))
    assert removed_before(version(first)) == {"a": "key-1"}
    assert removed_before(version(second)) == {"a": "key-2"}


def test_an_altered_list_is_not_trusted(root: str) -> None:
    tags = store_removed(root, "key", ["a", "b"], {})
    shorter = store_removed(root, "other", ["a"], {})
    store = store_for(root)
    store.write(tags["oubli.removed"], store.read(shorter["oubli.removed"]))
    with pytest.raises(DigestMismatch, match=r"digits/2") as caught:
        removed_before(version(tags))
    assert tags["oubli.removed"] in caught.value.problem
    assert caught.value.remedy


def test_a_lost_list_is_an_error(root: str) -> None:
    tags = store_removed(root, "key", ["a"], {})
    store_for(root).delete(tags["oubli.removed"])
    with pytest.raises(ObjectMissing):
        removed_before(version(tags))
