"""Which setting a cell shows, and what it says."""

from __future__ import annotations

from benchmarks.blanket.page import best, tables


def line(way: str, kl: float, drift: float, **more: object) -> dict[str, object]:
    facts = {"way": way, "step": "matching", "m": 1, "setting": 0.5, "parameters": 10, "floor": 0.1}
    return {**facts, "kl_removed": kl, "drift": drift, "accuracy_change": -0.01, **more}


def test_the_nearest_to_retraining_among_the_settings_that_spare_the_rest() -> None:
    gentle, strong, wild = ([line("all", kl, drift)] for kl, drift in ((0.5, 0.001), (0.3, 0.029), (0.1, 0.2)))
    assert best([gentle, strong, wild]) is strong
    assert best([wild, [line("all", 0.2, 0.3)]]) is wild
    assert best([[{"failure": "not finite"}], gentle]) is gentle
    assert best([[{"failure": "not finite"}, *gentle]]) == []
    assert best([[line("all", float("nan"), float("nan")), *gentle], [line("all", 0.1, 2.0)]]) == []


def test_a_cell_shows_mean_and_spread_drift_and_accuracy() -> None:
    moves = [
        line("nothing", 2.0, 0.0, parameters=0),
        line("all", 0.25, 0.004),
        line("all", 0.75, 0.006),
        line("output layer", 0.5, 0.002, parameters=5, setting=0.75),
    ]
    row = {
        "name": "loss/all slices",
        "slices": [2.0, 3.0],
        "of_output_layer": [1.0, 1.0],
        "seeds": [0.8, 0.9],
        "others": [0.1, 0.2],
        "originals": 0.5,
        "removed_against_retained": [[0.01, 0.5], [-0.02, 0.9]],
    }
    found = tables({"moves": moves, "evidence": [row]})
    assert "| **all parameters** | 100.0 % | 0.50 ± 0.35 / 5.0 / -1.0 |" in found
    assert "| the output layer | 50.0 % | 0.50 / 2.0 / -1.0 |" in found
    assert "| loss, all slices | 2.5 | 100 % | 0.85 | 0.50 | 0.15 | +0.01 (0.5), -0.02 (0.9) |" in found
