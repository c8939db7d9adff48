from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from oubli.components.blocks.slice_sizes import slice_totals, within_size
from oubli.components.blocks.slices import find_slices
from oubli.components.errors import ConfigurationError


def many_layers() -> nn.Module:
    """Every way in which a tensor is cut: rows, columns, groups, parts of a joint projection, tied tables."""
    module = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ConvTranspose2d(6, 4, 2, groups=2, bias=False),
        nn.Embedding(7, 5),
        nn.MultiheadAttention(8, 2),
        nn.MultiheadAttention(8, 2, kdim=3, vdim=5),
        nn.LayerNorm(5),
        nn.Linear(5, 7),
    )
    module[6].weight = module[2].weight
    return module


def test_totals_are_those_of_the_slices_own_parameters():
    slices = find_slices(many_layers())
    vector = torch.randn(slices.space.d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = {one: float(vector[slices.indices([one])].sum()) for one in slices.slices}
    assert len(expected) > 50
    assert slice_totals(slices, vector) == pytest.approx(expected)
    assert slice_totals(slices.only(["3"]), vector) == pytest.approx(
        {one: total for one, total in expected.items() if one.module == "3"}
    )


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 40), order=st.permutations(range(9)))
def test_a_block_is_as_near_its_size_as_no_other_slice_could_bring_it(size, order):
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 3))
    slices = find_slices(module)
    ranked = [slices.slices[place] for place in order]
    taken = within_size(slices, ranked, size)
    used = len(slices.indices(taken))
    sizes = {one: len(slices.indices([one])) for one in slices.slices}
    if used > size:
        assert taken == (ranked[0],)
        assert min(sizes.values()) > size
    else:
        assert all(used + sizes[one] > size for one in set(ranked) - set(taken))
    # An earlier rank is only passed over where it did not fit beside those before it.
    for place, one in enumerate(ranked):
        if one not in taken and used <= size:
            before = sum(sizes[other] for other in ranked[:place] if other in taken)
            assert before + sizes[one] > size


def test_what_tied_slices_share_counts_once():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    slices = find_slices(module)
    first, tied = slices.slices[0], slices.slices[3]
    assert len(slices.indices([first, tied])) == 5
    assert within_size(slices, [first, tied], 5) == (first, tied)
    assert within_size(slices, [first, tied], 4) == (first,)


def test_tied_layers_fill_a_block_as_their_union_does():
    slices = find_slices(many_layers())
    for size in (1, 5, 17, 60, 150, slices.space.d):
        expected, left = [], list(slices.slices)
        for one in left:
            if len(slices.indices([*expected, one])) <= size:
                expected.append(one)
        assert within_size(slices, slices.slices, size) == (tuple(expected) or slices.slices[:1])


def test_a_block_has_parameters():
    slices = find_slices(nn.Linear(2, 2))
    assert within_size(slices, [], 5) == ()
    with pytest.raises(ConfigurationError, match="size is 0"):
        within_size(slices, slices.slices, 0)
