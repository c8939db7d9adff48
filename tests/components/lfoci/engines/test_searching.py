"""The parts of the compiled search that can be asked by themselves; the whole is tested through the selection."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from oubli.components.lfoci.engines import searching

DISTANCES = st.one_of(st.sampled_from([0.0, 1.0, np.inf]), st.floats(min_value=0.0, allow_nan=False))


@settings(deadline=None)
@given(st.lists(DISTANCES, min_size=1, max_size=30), st.data())
def test_the_smallest_but_a_few_is_what_sorting_puts_there(values: list[float], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    assert searching._smallest(np.array(values), place) == sorted(values)[place]
