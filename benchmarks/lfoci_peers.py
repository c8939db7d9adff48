"""What L-FOCI is compared with: the same selection by scikit-learn's neighbours, and by the package xicorpy.

Axes: N rows, p columns.

Both are given standardised columns with the noise already in them, so that all three select from the same numbers and
must return the same list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def greedy(columns: Floats, losses: Floats) -> tuple[list[int], list[float]]:
    """Order and scores from (N, p) columns, as one writes it from the formulas with NumPy and scikit-learn.

    Two neighbour searches for each candidate at each step: in X, and in X with the candidate.
    """
    count = len(losses)
    rank = np.searchsorted(np.sort(losses), losses, side="right")
    above = count - np.searchsorted(np.sort(losses), losses, side="left")

    def reached(chosen: list[int]) -> NDArray[np.int64]:
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=1).fit(columns[:, chosen])
        neighbours = search.kneighbors(return_distance=False).ravel()
        least: NDArray[np.int64] = np.minimum(rank, rank[neighbours])
        return least

    def score(candidate: int) -> float:
        with_candidate = reached([*order, candidate])
        if not order:
            return float((count * with_candidate - above**2).sum() / (above * (count - above)).sum())
        without = reached(order)
        return float((with_candidate - without).sum() / (rank - without).sum())

    order: list[int] = []
    scores: list[float] = []
    while len(order) < columns.shape[1]:
        left = [column for column in range(columns.shape[1]) if column not in order]
        found = [score(column) for column in left]
        best = int(np.argmax(found))
        if found[best] <= 0.0:
            break
        order.append(left[best])
        scores.append(found[best])
    return order, scores


def by_xicorpy(columns: Floats, losses: Floats) -> list[int]:
    """Order from (N, p) columns. (It reports other scores: those of all columns so far together.)"""
    import xicorpy

    order: list[int] = xicorpy.select_features_using_foci(losses, columns)
    return order
