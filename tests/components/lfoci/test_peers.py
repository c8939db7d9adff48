"""Against xicorpy, written by others: where the definitions coincide, which is without ties and noise."""

from __future__ import annotations

import numpy as np
import pytest

from oubli.components.lfoci import codec, l_foci

xicorpy = pytest.importorskip("xicorpy", reason="xicorpy is not installed (pip install xicorpy)")

NO_NOISE = 1e-13  # as little as l_foci takes


def standard_table(seed: int, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    table = draw.standard_normal((count, width)) @ draw.standard_normal((width, width))
    losses = table[:, 0] * table[:, 1] + np.sin(table[:, 2]) + 0.1 * draw.standard_normal(count)
    return (table - table.mean(0)) / table.std(0), losses


@pytest.mark.parametrize(("count", "width"), [(50, 4), (200, 12), (500, 20)])
def test_the_same_columns_in_the_same_order(count: int, width: int) -> None:
    table, losses = standard_table(count, count, width)
    found = l_foci(table, losses, noise_scale=NO_NOISE, generator=np.random.default_rng(0))
    assert len(found.order) > 1
    assert list(found.order) == xicorpy.select_features_using_foci(losses, table)


def test_the_same_scores() -> None:
    table, losses = standard_table(1, 300, 6)
    found = l_foci(table, losses, noise_scale=NO_NOISE, generator=np.random.default_rng(0))
    for taken, score in enumerate(found.scores):
        given = table[:, found.order[:taken]] if taken else None
        theirs = xicorpy.compute_conditional_dependence(losses, table[:, [found.order[taken]]], given)
        assert score == pytest.approx(theirs, abs=1e-12)
        ours = codec(losses, table[:, found.order[taken]], given, generator=np.random.default_rng(0))
        assert ours == pytest.approx(theirs, abs=1e-12)
