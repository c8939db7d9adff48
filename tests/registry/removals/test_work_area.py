"""The work area: a stage is done once, is found again, and is never taken for done when it is not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic_core import PydanticSerializationError

from oubli.registry.errors import DigestMismatch, ObjectMissing
from oubli.registry.removals.work_area import WorkArea
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join


class Facts(BaseModel):
    model_config = ConfigDict(extra="forbid")

    steps: int
    loss: float


class Solved(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")

    kind: Literal["solved"] = "solved"
    order: tuple[int, ...]
    scores: dict[int, float]
    text: str
    none: None


class Failed(BaseModel):
    kind: Literal["failed"] = "failed"
    why: str


EITHER: TypeAdapter[Solved | Failed] = TypeAdapter(Annotated[Solved | Failed, Field(discriminator="kind")])


class Odd(BaseModel):
    when: Any


@pytest.fixture
def area(root: str) -> WorkArea:
    return WorkArea(join(root, "work", "key"))


class Compute:
    """A stage's work, which counts how often it is done."""

    def __init__(self, files: dict[str, bytes], facts: Any) -> None:
        self.files, self.facts, self.times = files, facts, 0

    def __call__(self, folder: Path) -> Any:
        self.times += 1
        assert list(folder.iterdir()) == []
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return self.facts


def two_files() -> Compute:
    return Compute({"weights.bin": b"\x00\x01", "a table #1.csv": b"a,b\n"}, Facts(steps=2, loss=0.1))


def test_a_stage_is_computed_once_and_found_again(area: WorkArea) -> None:
    compute = two_files()
    assert area.finished("update", Facts) is None
    first = area.run("update", Facts, compute)
    again = WorkArea(area.root).run("update", Facts, compute)
    assert compute.times == 1
    assert (first.resumed, again.resumed) == (False, True)
    assert first.files == again.files == {name: bytes_digest(data) for name, data in compute.files.items()}
    assert first.facts == again.facts == compute.facts
    assert area.finished("update", Facts) == area.require("update", Facts) == again


def test_files_come_back_as_they_were_written(area: WorkArea) -> None:
    compute = two_files()
    area.run("update", Facts, compute)
    for name, data in compute.files.items():
        with area.open("update", name) as path:
            assert path.read_bytes() == data
        assert store_for(area.root).read(join(area.root, "update", name)) == data


def test_stages_and_removals_are_apart(area: WorkArea, root: str) -> None:
    area.run("update", Facts, two_files())
    assert area.finished("validate", Facts) is None
    assert WorkArea(join(root, "work", "another")).finished("update", Facts) is None


def test_first_run_and_resumed_run_see_the_same_facts(area: WorkArea) -> None:
    # A tuple, an integer key, no number: JSON makes a list, a string and a word of them.
    facts = Solved(order=(3, 1), scores={1: 0.5, 2: math.inf}, text="né", none=None)
    first = area.run("blanket", EITHER, Compute({}, facts))
    assert first.facts == facts
    assert area.require("blanket", EITHER).facts == facts


def test_facts_are_of_the_kind_that_they_say(area: WorkArea) -> None:
    area.run("update", EITHER, Compute({}, Failed(why="indefinite")))
    assert area.require("update", EITHER).facts == Failed(why="indefinite")


@pytest.mark.parametrize(
    "other", [{"steps": 2}, {"steps": 2, "loss": 0.1, "more": 1}, {"steps": 2, "loss": "small"}, None], ids=str
)
def test_facts_of_another_version_are_computed_again(area: WorkArea, other: Any) -> None:
    compute = two_files()
    area.run("update", Facts, compute)
    uri = join(area.root, "update", "manifest.json")
    store = store_for(uri)
    store.write(uri, json.dumps(json.loads(store.read(uri)) | {"facts": other}).encode())
    assert area.finished("update", Facts) is None
    with pytest.raises(ObjectMissing, match=r"'update' has not finished .* cannot be used any more"):
        area.require("update", Facts)
    assert area.run("update", Facts, compute).facts == Facts(steps=2, loss=0.1)
    assert compute.times == 2


def test_a_manifest_of_another_version_is_none(area: WorkArea) -> None:
    uri = join(area.root, "update", "manifest.json")
    store_for(uri).write(uri, b'{"facts": {"steps": 2, "loss": 0.1}, "digests": {}}')
    assert area.finished("update", Facts) is None
    with pytest.raises(ObjectMissing), area.open("update", "weights.bin"):
        pass


def test_a_crash_while_computing_leaves_nothing_finished(area: WorkArea) -> None:
    def crash(folder: Path) -> Facts:
        (folder / "weights.bin").write_bytes(b"half of it")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        area.run("update", Facts, crash)
    assert area.finished("update", Facts) is None
    assert list(store_for(area.root).list(area.root)) == []
    with pytest.raises(ObjectMissing, match=r"'update' has not finished") as caught:
        area.require("update", Facts)
    assert "resumes" in caught.value.remedy
    compute = two_files()
    assert not area.run("update", Facts, compute).resumed
    assert compute.times == 1


def test_facts_that_are_no_json_finish_nothing(area: WorkArea) -> None:
    with pytest.raises(PydanticSerializationError):
        area.run("update", Odd, Compute({"weights.bin": b"1"}, Odd(when=object())))
    assert area.finished("update", Odd) is None


def test_files_without_a_manifest_are_not_a_finished_stage(area: WorkArea) -> None:
    # What a process killed between its uploads leaves.
    store = store_for(area.root)
    store.write(join(area.root, "update", "weights.bin"), b"of the killed run")
    assert area.finished("update", Facts) is None
    area.run("update", Facts, two_files())
    with area.open("update", "weights.bin") as path:
        assert path.read_bytes() == b"\x00\x01"


@pytest.mark.parametrize("name", ["weights.bin", "a table #1.csv", "manifest.json"])
def test_a_stage_that_lost_a_file_is_done_again(area: WorkArea, name: str) -> None:
    compute = two_files()
    area.run("update", Facts, compute)
    uri = join(area.root, "update", name)
    store_for(uri).delete(uri)
    assert area.finished("update", Facts) is None
    assert not area.run("update", Facts, compute).resumed
    assert compute.times == 2
    assert area.finished("update", Facts) is not None


@pytest.mark.parametrize("alter", [lambda data: data + b"x", lambda data: b"", lambda data: data[::-1]])
def test_altered_bytes_are_not_handed_on(area: WorkArea, alter: Callable[[bytes], bytes]) -> None:
    compute = two_files()
    area.run("update", Facts, compute)
    uri = join(area.root, "update", "weights.bin")
    store_for(uri).write(uri, alter(b"\x00\x01"))
    assert area.run("update", Facts, compute).resumed
    with pytest.raises(DigestMismatch) as caught, area.open("update", "weights.bin"):
        pass
    assert uri in caught.value.problem
    assert "'update'" in caught.value.problem
    assert join(area.root, "update") in caught.value.remedy
    with area.open("update", "a table #1.csv") as path:
        assert path.read_bytes() == b"a,b\n"


def test_the_remedy_for_altered_bytes_works(area: WorkArea) -> None:
    area.run("update", Facts, two_files())
    folder = join(area.root, "update")
    store = store_for(folder)
    store.write(join(folder, "weights.bin"), b"altered")
    for entry in list(store.list(folder)):
        store.delete(entry.uri)
    area.run("update", Facts, two_files())
    with area.open("update", "weights.bin") as path:
        assert path.read_bytes() == b"\x00\x01"


def test_recorded_facts_replace_earlier_ones(area: WorkArea) -> None:
    first = area.record("register", Facts, Facts(steps=1, loss=0.5))
    assert (first.files, first.resumed) == ({}, False)
    area.record("register", Facts, Facts(steps=2, loss=0.25))
    found = area.require("register", Facts)
    assert found.facts == Facts(steps=2, loss=0.25)
    assert found.resumed


def test_a_checkpoint_is_kept_until_its_stage_is_finished(tmp_path: Path) -> None:
    area = WorkArea(str(tmp_path / "area"))
    with area.kept("one", "state") as path:
        assert path is None
    for text in ("first", "second"):
        (tmp_path / "state").write_text(text)
        area.keep("one", "state", tmp_path / "state")
    with area.kept("one", "state") as path:
        assert path is not None
        assert path.read_text() == "second"
    with area.kept("two", "state") as path:
        assert path is None
    area.run("one", dict[str, int], lambda _folder: {"n": 1})
    with area.kept("one", "state") as path:
        assert path is None
