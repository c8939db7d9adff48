"""What the finished cases say: one row of evidence for each response and set of candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.blanket.evidence import Chosen, difference, other_samples, same_sample
from benchmarks.blanket.problem import OUTPUT_LAYER, Problem
from benchmarks.blanket.running import PUBLISHED, Cases, Selections
from benchmarks.blanket.selecting import Candidates, Response, Selector


def evidence_of(problem: Problem, cases: Cases) -> list[dict[str, object]]:
    """Each figure by original, first the first; `originals`, agreement between the first two, is one.

    `seeds` is the mean Jaccard index of a sample's two selections (other copies, other noise), `others` that of two
    samples' selections, `removed_against_retained` what `difference` returns, `fewer` agreement with another seed's
    selection where there are fewer copies: by N.
    """
    scale = problem.scale
    slices = Selector.of(problem.original(scale.originals[0]), problem.removed.inputs).slices
    layers = [one.module for one in slices.slices]
    selections = [Selections(scale, original, cases) for original in scale.originals]

    def row(name: str) -> dict[str, object]:
        first, second, retained = (
            [one.of(kind, seed, name) for one in selections]
            for kind, seed in (("removed", 0), ("removed", 1), ("retained", 0))
        )
        return {
            "name": name,
            "slices": [_size(chosen) for chosen in first],
            "of_output_layer": [_share(chosen, layers) for chosen in first],
            "seeds": [same_sample(a, b) for a, b in zip(first, second, strict=True)],
            "others": [other_samples(chosen) for chosen in first],
            "originals": same_sample(first[0], first[1]),
            "removed_against_retained": [difference(a, b, 0) for a, b in zip(first, retained, strict=True)],
        }

    rows = [row(f"{response.value}/{candidates.value}") for response in Response for candidates in Candidates]
    rows[0]["fewer"] = {
        str(copies): [
            same_sample(one.of("removed", 0, f"{PUBLISHED}/{copies}"), one.of("removed", 1, PUBLISHED))
            for one in selections
        ]
        for copies in scale.fewer
    }
    return rows


def _size(chosen: Sequence[Chosen]) -> float:
    return float(np.mean([len(one) for one in chosen]))


def _share(chosen: Sequence[Chosen], layers: Sequence[str]) -> float:
    """Of all chosen slices, those in the output layer."""
    found = [layers[position] == OUTPUT_LAYER for one in chosen for position in one]
    return float(np.mean(found)) if found else 0.0
