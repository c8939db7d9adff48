"""The work area: a stage is done once, is found again, and is never taken for done when it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oubli.registry.errors import DigestMismatch, ObjectMissing
from oubli.registry.removals.work_area import WorkArea
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join


@pytest.fixture
def area(root: str) -> WorkArea:
    return WorkArea(join(root, "work", "outcome"))


class Compute:
    """A stage's work, which counts how often it is done."""

    def __init__(self, files: dict[str, bytes], facts: dict[str, Any]) -> None:
        self.files, self.facts, self.times = files, facts, 0

    def __call__(self, folder: Path) -> dict[str, Any]:
        self.times += 1
        assert list(folder.iterdir()) == []
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return self.facts


def two_files() -> Compute:
    return Compute({"weights.bin": b"\x00\x01", "a table #1.csv": b"a,b\n"}, {"steps": 2, "loss": 0.1})


def test_a_stage_is_computed_once_and_found_again(area: WorkArea) -> None:
    compute = two_files()
    assert area.finished("update") is None
    first = area.run("update", compute)
    again = WorkArea(area.root).run("update", compute)
    assert compute.times == 1
    assert (first.resumed, again.resumed) == (False, True)
    assert first.files == again.files == {name: bytes_digest(data) for name, data in compute.files.items()}
    assert first.facts == again.facts == compute.facts
    assert area.finished("update") == area.require("update") == again


def test_files_come_back_as_they_were_written(area: WorkArea) -> None:
    compute = two_files()
    result = area.run("update", compute)
    for name, data in compute.files.items():
        with result.open(name) as path:
            assert path.read_bytes() == data
        assert store_for(result.uri(name)).read(result.uri(name)) == data


def test_stages_and_outcomes_are_apart(area: WorkArea, root: str) -> None:
    area.run("update", two_files())
    assert area.finished("validate") is None
    assert WorkArea(join(root, "work", "another")).finished("update") is None


def test_first_run_and_resumed_run_see_the_same_facts(area: WorkArea) -> None:
    # A tuple, an integer key: JSON makes a list and a string of them.
    compute = Compute({}, {"order": (3, 1), "scores": {1: 0.5}, "text": "né", "none": None})
    first = area.run("blanket", compute)
    assert first.facts == {"order": [3, 1], "scores": {"1": 0.5}, "text": "né", "none": None}
    assert first.facts == area.require("blanket").facts


def test_a_crash_while_computing_leaves_nothing_finished(area: WorkArea) -> None:
    def crash(folder: Path) -> dict[str, Any]:
        (folder / "weights.bin").write_bytes(b"half of it")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        area.run("update", crash)
    assert area.finished("update") is None
    assert list(store_for(area.root).list(area.root)) == []
    with pytest.raises(ObjectMissing, match=r"'update' has not finished") as caught:
        area.require("update")
    assert "resumes" in caught.value.remedy
    compute = two_files()
    assert not area.run("update", compute).resumed
    assert compute.times == 1


def test_facts_that_are_no_json_finish_nothing(area: WorkArea) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        area.run("update", Compute({"weights.bin": b"1"}, {"when": object()}))
    assert area.finished("update") is None


def test_files_without_a_manifest_are_not_a_finished_stage(area: WorkArea) -> None:
    # What a process killed between its uploads leaves.
    store = store_for(area.root)
    store.write(join(area.root, "update", "weights.bin"), b"of the killed run")
    assert area.finished("update") is None
    with area.run("update", two_files()).open("weights.bin") as path:
        assert path.read_bytes() == b"\x00\x01"


@pytest.mark.parametrize("name", ["weights.bin", "a table #1.csv", "manifest.json"])
def test_a_stage_that_lost_a_file_is_done_again(area: WorkArea, name: str) -> None:
    compute = two_files()
    uri = area.run("update", compute).uri(name)
    store_for(uri).delete(uri)
    assert area.finished("update") is None
    assert not area.run("update", compute).resumed
    assert compute.times == 2
    assert area.finished("update") is not None


@pytest.mark.parametrize("alter", [lambda data: data + b"x", lambda data: b"", lambda data: data[::-1]])
def test_altered_bytes_are_not_handed_on(area: WorkArea, alter: Callable[[bytes], bytes]) -> None:
    compute = two_files()
    uri = area.run("update", compute).uri("weights.bin")
    store_for(uri).write(uri, alter(b"\x00\x01"))
    resumed = area.run("update", compute)
    with pytest.raises(DigestMismatch) as caught, resumed.open("weights.bin"):
        pass
    assert uri in caught.value.problem
    assert "'update'" in caught.value.problem
    assert resumed.root in caught.value.remedy
    with resumed.open("a table #1.csv") as path:
        assert path.read_bytes() == b"a,b\n"


def test_the_remedy_for_altered_bytes_works(area: WorkArea) -> None:
    result = area.run("update", two_files())
    store = store_for(result.root)
    store.write(result.uri("weights.bin"), b"altered")
    for entry in list(store.list(result.root)):
        store.delete(entry.uri)
    with area.run("update", two_files()).open("weights.bin") as path:
        assert path.read_bytes() == b"\x00\x01"


def test_recorded_facts_replace_earlier_ones(area: WorkArea) -> None:
    first = area.record("register", {"version": None, "status": "refused"})
    assert (first.files, first.resumed) == ({}, False)
    area.record("register", {"version": "2"})
    found = area.require("register")
    assert found.facts == {"version": "2"}
    assert found.resumed
