from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks.unlearning.measures import Outputs, Quality, Ruler, divergence, margins

EVEN = torch.zeros(1, 2)
SURE = torch.tensor([[math.log(3.0), 0.0]])
"""Predicts (3/4, 1/4)."""


def outputs(table: Tensor, accuracy: float = 1.0) -> Outputs:
    return Outputs(dict.fromkeys(("U", "R", "test"), table), accuracy)


def ruler(*tables: Tensor) -> Ruler:
    return Ruler([outputs(table) for table in tables], dict.fromkeys(("U", "R", "test"), torch.zeros(1).long()))


def kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_the_floor_is_each_retrained_model_against_the_mean_of_the_others():
    found = ruler(EVEN, SURE, SURE)
    # Without the first: (3/4) against 1/2. Without either other: the mean of 1/2 and 3/4, 5/8, against 3/4.
    assert found.floor["U"] == pytest.approx((kl(0.75, 0.5) + 2 * kl(0.625, 0.75)) / 3)


def test_a_model_is_compared_with_the_same_means_as_the_floor():
    found = ruler(EVEN, SURE, SURE)
    figures = found.figures(outputs(EVEN), outputs(EVEN))
    assert figures["kl_U"] == pytest.approx((kl(0.75, 0.5) + 2 * kl(0.625, 0.5)) / 3)
    assert figures["floors"] == pytest.approx(figures["kl_U"] / found.floor["U"])


def test_a_retrained_model_is_compared_with_the_others_alone():
    found = ruler(EVEN, SURE, SURE)
    assert found.figures(outputs(EVEN), outputs(EVEN), out=0)["kl_U"] == pytest.approx(kl(0.75, 0.5))


def test_margins_are_log_odds_against_the_best_other_class():
    found = margins(torch.tensor([[1.0, 4.0, 2.0], [1.0, 4.0, 2.0]]), torch.tensor([1, 2]))
    assert found.tolist() == [2.0, -2.0]


def test_margin_gaps_are_in_standard_deviations_of_the_retrained_models():
    tables = [torch.tensor([[value, 0.0]]) for value in (1.0, 2.0, 3.0)]
    found = ruler(*tables).figures(outputs(torch.tensor([[5.0, 0.0]])), outputs(EVEN))
    # Mean 2, sample standard deviation 1.
    assert found["margin_gap"] == pytest.approx(3.0)
    assert found["margin_distance"] == pytest.approx(3.0)
    below = ruler(*tables).figures(outputs(torch.tensor([[-1.0, 0.0]])), outputs(EVEN))
    assert (below["margin_gap"], below["margin_distance"]) == pytest.approx((-3.0, 3.0))


def test_membership_counts_the_removed_that_are_surer_than_test_samples():
    labels = {"U": torch.zeros(2).long(), "R": torch.zeros(1).long(), "test": torch.zeros(2).long()}
    tables = {
        "U": torch.tensor([[3.0, 0.0], [1.0, 0.0]]),
        "R": EVEN,
        "test": torch.tensor([[2.0, 0.0], [0.0, 0.0]]),
    }
    found = Ruler([Outputs(tables, 1.0)] * 2, labels)
    # Of the four pairs, three have the removed sample surer.
    assert found.membership(Outputs(tables, 1.0)) == pytest.approx(0.75)


def test_flips_are_labels_on_retained_samples_that_differ_from_the_original_s():
    tables = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    labels = dict.fromkeys(("U", "R", "test"), torch.zeros(4).long())
    found = Ruler([outputs(tables), outputs(2 * tables)], labels)
    changed = tables.flip(1)
    changed[1:] = tables[1:]
    assert found.figures(outputs(changed), outputs(tables))["flips_R"] == 0.25


def test_a_prediction_of_zero_adds_nothing_to_a_divergence():
    first = torch.log(torch.tensor([[1.0, 0.0]]))
    assert divergence(first, torch.log(torch.tensor([[0.5, 0.5]]))) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("floors", "accuracy", "expected"),
    [
        (1.25, 0.891, "good"),
        (1.26, 0.90, "bad"),
        (1.0, 0.889, "bad"),
        (3.0, 0.9, "bad"),
        (3.01, 0.9, "grossly bad"),
        (1.0, 0.869, "grossly bad"),
        (math.nan, 0.9, "grossly bad"),
        (1.0, 0.95, "good"),
    ],
)
def test_what_a_model_deserves(floors, accuracy, expected):
    figures = {"floors": floors, "accuracy_test": accuracy, "membership_off": -0.1}
    assert Quality.of(figures, {"accuracy_test": 0.9}) == expected


@pytest.mark.parametrize("off", [0.11, -0.11, math.nan])
def test_a_model_that_membership_inference_tells_from_retrained_ones_is_not_good(off):
    figures = {"floors": 1.0, "accuracy_test": 0.9, "membership_off": off}
    assert Quality.of(figures, {"accuracy_test": 0.9}) == "bad"
