from __future__ import annotations

import pytest
import torch

from benchmarks.unlearning.gate import all_judged
from benchmarks.unlearning.problems import RemovalKind
from benchmarks.unlearning.store import Record, Store, save

CLASSES, REMOVED, OTHERS = 4, 20, 200


def table(seed: int, labels: torch.Tensor, sureness: float) -> torch.Tensor:
    noise = torch.randn(len(labels), CLASSES, generator=torch.Generator().manual_seed(seed))
    return noise + sureness * torch.nn.functional.one_hot(labels, CLASSES)


@pytest.fixture
def store(tmp_path):
    """A cell whose originals are sure of the removed labels, and whose retrained models know nothing of them."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"U": REMOVED, "V": OTHERS, "test": OTHERS, "R": OTHERS}
    labels = {part: torch.randint(CLASSES, (size,), generator=generator) for part, size in sizes.items()}
    found = Store(tmp_path)
    cell = found.cell("images-cnn", RemovalKind.MISLABELLED)
    save(cell.folder / "samples.pt", labels)

    def outputs(seed: int, sure_of_removed: float) -> dict[str, torch.Tensor]:
        sureness = {"U": sure_of_removed, "V": 3.0, "test": 3.0, "R": 9.0}
        return {part: table(100 * seed + place, labels[part], sureness[part]) for place, part in enumerate(sizes)}

    for seed in range(2):
        cell.write(f"original-{seed}", Record(outputs(seed, 9.0), 1.0, {}, ""))
        cell.write(f"auditor-{seed}", Record(outputs(20 + seed, 0.0), 1.0, {"seconds": 1.0}, ""))
        facts = {"method": "nothing", "group": "own", "original": seed}
        cell.write(f"nothing-{seed}", Record(outputs(seed, 9.0), 1.0, facts, ""))
    for seed in range(10, 14):
        cell.write(f"retrained-{seed}", Record(outputs(seed, 0.0), 1.0, {}, ""))
    broken = {part: torch.full_like(value, float("nan")) for part, value in outputs(0, 9.0).items()}
    facts = {"method": "overshoot", "group": "saboteur", "original": 0}
    cell.write("overshoot-0", Record(broken, 0.0, facts, ""))
    cell.write("newton-0", Record({}, 0.0, {"method": "newton", "original": 0, "failed": "no curvature"}, ""))
    return found


def test_every_model_is_judged_and_what_is_grossly_bad_is_said_to_be(store):
    found = {(one.method, one.original): one for one in all_judged(store)}
    assert found["nothing", 0].quality == "grossly bad"
    assert not found["nothing", 0].accepted
    assert {one.quality for one in found.values() if one.method == "retraining"} == {"good"}


def test_each_retrained_model_is_judged_beside_one_original(store):
    retrained = [one for one in all_judged(store) if one.method == "retraining"]
    assert [one.original for one in retrained] == [0, 1, 0, 1]
    assert all(one.group == "reference" for one in retrained)


def test_what_is_not_finite_is_grossly_bad_and_never_accepted(store):
    (found,) = [one for one in all_judged(store) if one.method == "overshoot"]
    assert (found.quality, found.accepted, found.statistics) == ("grossly bad", False, None)


def test_a_method_that_failed_is_no_model(store):
    assert "newton" not in {one.method for one in all_judged(store)}
