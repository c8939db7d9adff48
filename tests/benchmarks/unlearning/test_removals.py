from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.unlearning.data import Data, load
from benchmarks.unlearning.removals import HALF_CLASS, removal


@pytest.fixture
def digits():
    return load(Data.DIGITS, Path("nowhere"), 300)


@pytest.fixture
def texts():
    return load(Data.SYNTHETIC_TEXT, Path("nowhere"))


@pytest.mark.parametrize("size", ["1", "10", "100"])
def test_a_number_is_kept_exactly_where_samples_have_no_owner(digits, size):
    found = removal(digits, size, 0)
    assert found.count == int(size) == len(found.positions.unique())
    assert len(found.retained) + len(found.removed) == 300


def test_removed_and_retained_make_up_the_training_samples(digits):
    found = removal(digits, "50", 1)
    together = torch.cat([found.removed.inputs, found.retained.inputs]).flatten(1)
    everything = digits.train.inputs.flatten(1)
    assert torch.equal(together.sort(0).values, everything.sort(0).values)


def test_half_a_class_is_half_of_one_class_another_for_each_seed(digits):
    labels = set()
    for seed in range(3):
        found = removal(digits, HALF_CLASS, seed)
        label = set(found.removed.labels.tolist())
        assert len(label) == 1
        labels |= label
        assert found.count == int((digits.train.labels == label.pop()).sum()) // 2
    assert len(labels) == 3


@pytest.mark.parametrize("size", ["10", "100"])
def test_owners_go_whole_and_about_as_many_samples_as_asked_for(texts, size):
    found = removal(texts, size, 0)
    gone, left = texts.owner[found.positions], texts.owner[found.retained_positions]
    assert not set(gone.tolist()) & set(left.tolist())
    # No owner left would have brought the count nearer.
    counts = torch.bincount(texts.owner)
    off = abs(found.count - int(size))
    assert all(abs(found.count + int(counts[one]) - int(size)) >= off for one in set(left.tolist()))


def test_where_every_owner_is_too_large_the_smallest_goes(texts):
    counts = torch.bincount(texts.owner)
    assert int(counts[counts > 0].min()) > 2
    assert removal(texts, "1", 0).count == int(counts[counts > 0].min())


def test_a_seed_names_one_removal_set(digits):
    assert torch.equal(removal(digits, "10", 2).positions, removal(digits, "10", 2).positions)
    assert not torch.equal(removal(digits, "10", 2).positions, removal(digits, "10", 3).positions)
