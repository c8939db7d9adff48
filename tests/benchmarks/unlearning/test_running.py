from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.unlearning.__main__ import main
from benchmarks.unlearning.methods.catalogue import METHODS
from benchmarks.unlearning.problems import CNN, DIGITS, QUICK_GRID, RemovalKind, bench
from benchmarks.unlearning.running import Plan, run_all
from benchmarks.unlearning.store import Record, Store

NOWHERE = Path("nowhere")


@pytest.mark.parametrize(
    ("pattern", "names", "wanted"),
    [
        ("images-cnn", ("images-cnn", "random", "matching"), True),
        ("images-cnn/*/matching", ("images-cnn", "random", "matching"), True),
        ("images-cnn/*/matching", ("images-cnn", "random", "newton"), False),
        ("images-cnn/*/matching", ("images-cnn", "random"), True),
        ("images-cnn/random", ("images-cnn", "cluster"), False),
        ("images-*", ("intents-encoder",), False),
    ],
)
def test_a_pattern_names_a_part(pattern, names, wanted):
    assert Plan((), Store(NOWHERE), NOWHERE, (pattern,)).wants(*names) is wanted


def test_a_problem_without_its_data_is_skipped_and_said_to_be(tmp_path):
    told: list[str] = []
    run_all(Plan(((CNN, RemovalKind.RANDOM),), Store(tmp_path), tmp_path / "empty"), told.append)
    assert len(told) == 1
    assert "images-cnn" in told[0]


def test_a_training_is_kept_and_found_by_samples_and_seed(tmp_path):
    ready, store = bench(DIGITS, NOWHERE), Store(tmp_path)
    few = ready.train.select(torch.arange(40))
    first = store.trained(ready, few, 0)
    files = list(tmp_path.rglob("*.pt"))
    again = store.trained(ready, few, 0)
    assert list(tmp_path.rglob("*.pt")) == files
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    store.trained(ready, few, 1)
    store.trained(ready, ready.train.select(torch.arange(1, 41)), 0)
    assert len(list(tmp_path.rglob("*.pt"))) == 3


def test_a_record_comes_back_as_it_was(tmp_path):
    cell = Store(tmp_path).cell("images-cnn", RemovalKind.RANDOM)
    record = Record({"U": torch.rand(3, 2)}, 0.5, {"method": "matching", "original": 0}, "digest")
    cell.write("matching-0", record)
    found = cell.read("matching-0")
    assert found is not None
    assert torch.equal(found.outputs["U"], record.outputs["U"])
    assert (found.accuracy, found.facts, found.digest) == (0.5, record.facts, "digest")
    assert cell.read("newton-0") is None
    assert cell.names() == ["matching-0"]


def quick(folder: Path, *options: str) -> dict[str, list[dict[str, object]]]:
    assert main(["--quick", "--folder", str(folder), *options]) == 0
    found: dict[str, list[dict[str, object]]] = json.loads((folder / "unlearning.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quick_run_measures_every_method_and_goes_on_where_it_stopped(tmp_path):
    found = quick(tmp_path)
    assert {one["set"] for one in found["cells"]} == {kind.value for _, kind in QUICK_GRID}
    own = {str(one["method"]): one for one in found["rows"] if one["set"] == "mislabelled"}
    assert set(own) == {"retraining", *(method.name for method in METHODS)}
    assert own["matching"]["floors"] < own["nothing"]["floors"] < own["wrong-targets"]["floors"]
    assert own["wrong-samples"]["accepted"] == 0
    assert (tmp_path / "unlearning-digits.svg").is_file()
    assert "### digits: backdoor" in (tmp_path / "README.md").read_text(encoding="utf-8")
    # One method's record is lost, another's is of other settings: these two alone are made again.
    cell = Store(tmp_path).cell("digits", RemovalKind.BACKDOOR)
    (cell.folder / "scrub-0.pt").unlink()
    stale = cell.read("ssd-0")
    assert stale is not None
    cell.write("ssd-0", Record(stale.outputs, stale.accuracy, stale.facts, "of other settings"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("cells/**/*-0.pt")}
    again = quick(tmp_path, "--only", "digits/backdoor")
    changed = {path.stem for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {"ssd-0"}
    assert cell.read("scrub-0") is not None
    assert {one["set"] for one in again["rows"]} == {one["set"] for one in found["rows"]}
    assert [one for one in again["rows"] if one["set"] == "mislabelled"] == [
        one for one in found["rows"] if one["set"] == "mislabelled"
    ]
