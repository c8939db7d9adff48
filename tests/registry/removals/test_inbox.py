"""The inbox: what waits, and that every file ends in one place with its outcome, whatever its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oubli.registry.errors import RemovalSetError
from oubli.registry.removals.inbox import reject, settle, waiting
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

OUTCOME = RemovalOutcome(
    status=Status.REGISTERED,
    removal_key="0123",
    model="digits",
    parent_version="1",
    version="2",
    run_id="run",
    removed=3,
    already_removed=1,
    unknown=0,
)


def put(root: str, *parts: str, text: str = "sample_id\n") -> str:
    uri = join(root, *parts)
    store_for(uri).write(uri, text.encode())
    return uri


def contents(root: str, *parts: str) -> dict[str, str]:
    """Text of every object below a folder, by its last path step."""
    folder = join(root, *parts)
    store = store_for(folder)
    found = [entry.uri for entry in store.list(folder)]
    assert len({uri.rpartition("/")[2] for uri in found}) == len(found)
    return {uri.rpartition("/")[2]: store.read(uri).decode() for uri in found}


def test_an_empty_store_has_nothing_waiting(root: str) -> None:
    assert waiting(root) == {}


def test_waiting_files_by_model_both_sorted(root: str) -> None:
    put(root, "inbox", "wine", "b.csv")
    put(root, "inbox", "digits", "c.csv")
    put(root, "inbox", "digits", "a.csv")
    put(root, "inbox", "digits", "2026", "b.csv")
    put(root, "inbox", "stray.csv")
    put(root, "inbox-old", "digits", "d.csv")
    put(root, "processed", "digits", "e.csv")
    folder = join(root, "inbox")
    found = waiting(root)
    assert list(found) == ["digits", "wine"]
    assert found == {
        "digits": sorted(join(folder, "digits", name) for name in ("a.csv", "c.csv", "2026/b.csv")),
        "wine": [join(folder, "wine", "b.csv")],
    }
    assert waiting(root, ["wine", "absent"]) == {"wine": found["wine"]}
    assert waiting(root, []) == waiting(root)
    assert waiting(root, ["absent"]) == {}


def test_a_models_name_is_as_it_was_given(root: str) -> None:
    put(root, "inbox", "a model #1", "a file #1.csv")
    assert list(waiting(root)) == ["a model #1"]
    assert list(waiting(root, ["a model #1"])) == ["a model #1"]


def test_taken_files_are_moved_with_their_outcome(root: str) -> None:
    put(root, "inbox", "digits", "monday.csv", text="sample_id\na\n")
    put(root, "inbox", "digits", "a file #1.csv", text="sample_id\nb\n")
    put(root, "inbox", "wine", "monday.csv")
    folder = settle(root, "digits", waiting(root)["digits"], OUTCOME)
    assert list(waiting(root)) == ["wine"]
    store = store_for(folder)
    assert folder.startswith(join(root, "processed", "digits"))
    assert store.read(join(folder, "files", "monday.csv")) == b"sample_id\na\n"
    assert store.read(join(folder, "files", "a file #1.csv")) == b"sample_id\nb\n"
    assert RemovalOutcome.model_validate_json(store.read(join(folder, "outcome.json"))) == OUTCOME
    assert len(list(store.list(folder))) == 3


def test_equal_names_in_different_folders_are_both_kept(root: str) -> None:
    put(root, "inbox", "digits", "monday", "a.csv", text="of monday")
    put(root, "inbox", "digits", "tuesday", "a.csv", text="of tuesday")
    folder = settle(root, "digits", waiting(root)["digits"], OUTCOME)
    store = store_for(folder)
    assert store.read(join(folder, "files", "monday", "a.csv")) == b"of monday"
    assert store.read(join(folder, "files", "tuesday", "a.csv")) == b"of tuesday"


def test_a_file_called_as_the_outcome_does_not_replace_it(root: str) -> None:
    put(root, "inbox", "digits", "outcome.json", text="a removal set")
    folder = settle(root, "digits", waiting(root)["digits"], OUTCOME)
    store = store_for(folder)
    assert store.read(join(folder, "files", "outcome.json")) == b"a removal set"
    assert RemovalOutcome.model_validate_json(store.read(join(folder, "outcome.json"))) == OUTCOME


def test_equal_names_on_different_days_are_both_kept(root: str) -> None:
    folders = []
    for text in ("first", "second"):
        put(root, "inbox", "digits", "a.csv", text=text)
        folders.append(settle(root, "digits", waiting(root)["digits"], OUTCOME))
    assert [store_for(root).read(join(folder, "files", "a.csv")) for folder in folders] == [b"first", b"second"]


def test_filing_an_outcome_can_be_tried_again(root: str) -> None:
    # As after a store that was lost between two moves.
    put(root, "inbox", "digits", "a.csv")
    gone = join(root, "inbox", "digits", "0-gone.csv")
    folder = settle(root, "digits", [gone, *waiting(root)["digits"]], OUTCOME)
    assert waiting(root) == {}
    assert store_for(folder).exists(join(folder, "files", "a.csv"))


def test_the_outcome_names_the_files_it_took(root: str) -> None:
    put(root, "inbox", "digits", "a.csv")
    folder = settle(root, "digits", waiting(root)["digits"], OUTCOME)
    record = json.loads(store_for(folder).read(join(folder, "outcome.json")))
    assert record["files"] == [join(folder, "files", "a.csv")]


def test_a_store_named_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put("store", "inbox", "digits", "a.csv", text="a")
    assert list(waiting("store")) == ["digits"]
    folder = settle("store", "digits", waiting("store")["digits"], OUTCOME)
    assert (tmp_path / folder / "files" / "a.csv").read_text() == "a"


@pytest.mark.parametrize("name", ["typo.csv", "a file #1.csv", "2026/typo.csv"])
def test_an_unusable_file_is_moved_aside_with_its_reason(root: str, name: str) -> None:
    put(root, "inbox", "digits", name, text="nonsense")
    (uri,) = waiting(root)["digits"]
    moved = reject(root, "digits", uri, RemovalSetError("It has no id column.", remedy="Add sample_id."))
    assert waiting(root) == {}
    assert moved.startswith(join(root, "rejected", "digits"))
    assert moved.endswith(join(root, name).removeprefix(root))
    store = store_for(moved)
    assert store.read(moved) == b"nonsense"
    assert store.read(f"{moved}.error.txt") == b"It has no id column.\nAdd sample_id.\n"
    assert len(list(store.list(join(root, "rejected")))) == 2
