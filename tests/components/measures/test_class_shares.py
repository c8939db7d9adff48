from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oubli.components.errors import ConfigurationError
from oubli.components.measures.class_shares import class_shares


@given(labels=st.lists(st.integers(-2, 3), min_size=1, max_size=30), data=st.data())
def test_shares_are_counts(labels, data):
    places = data.draw(st.lists(st.sampled_from(range(len(labels))), unique=True))
    removed = [labels[place] for place in places]
    found = class_shares(torch.tensor(removed, dtype=torch.int64), torch.tensor(labels))
    assert found == {one: removed.count(one) / labels.count(one) for one in set(removed)}


def test_truths_are_classes():
    assert class_shares(torch.tensor([True]), torch.tensor([True, False, True])) == {1: 0.5}


def test_targets_without_classes_are_refused():
    with pytest.raises(ConfigurationError, match=r"dtype torch\.float32"):
        class_shares(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ConfigurationError, match=r"training labels have dtype torch\.int64 and shape \(3, 2\)"):
        class_shares(torch.zeros(2, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64))


def test_no_more_can_be_removed_than_there_is():
    with pytest.raises(ConfigurationError, match="2 samples of class 7 are removed, of 1 in training"):
        class_shares(torch.tensor([7, 7]), torch.tensor([7, 1]))
