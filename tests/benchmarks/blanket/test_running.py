"""Removal sets, and cases that are kept."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.blanket.problem import Scale
from benchmarks.blanket.running import Cases, Selections, removal_sets, retained_of_equal_label
from oubli.components.model.samples import Samples

SCALE = Scale(removed=12, looked_at=4, singles=2, tens=2)


def test_sets_of_one_of_some_and_of_all() -> None:
    assert list(removal_sets(SCALE)) == [
        (1, range(1), range(1)),
        (1, range(1, 2), range(1, 2)),
        (2, range(2), range(2)),
        (2, range(2, 4), range(2, 4)),
        (12, range(12), range(4)),
    ]


def test_each_retained_partner_has_the_removed_samples_label_and_is_taken_once() -> None:
    removed = Samples(torch.zeros(4, 1), torch.tensor([1, 1, 0, 1]))
    retained = Samples(torch.arange(10.0)[:, None], torch.arange(10) % 2)
    found = retained_of_equal_label(removed, retained)
    assert found.labels.tolist() == [1, 1, 0, 1]
    assert len(set(found.inputs.flatten().tolist())) == 4


def test_finished_cases_are_found_again(tmp_path: Path) -> None:
    cases = Cases(tmp_path / "folder" / "cases.jsonl")
    for place, chosen in enumerate(([3, 1], [1], [], [5])):
        cases.add(f"select 0 removed {place} 0", {"chosen": {"loss/all slices": chosen}})
    again = Cases(cases.path)
    assert again.lines == cases.lines
    selections = Selections(SCALE, 0, again)
    assert selections.of("removed", 0, "loss/all slices") == [(3, 1), (1,), (), (5,)]
    assert selections.union(range(2, 4), "loss/all slices") == {5}
    assert selections.union(range(2), "loss/all slices") == {1, 3}
