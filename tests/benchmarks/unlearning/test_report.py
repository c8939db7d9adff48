from __future__ import annotations

import json

import pytest

from benchmarks.unlearning.bars import missed_bars, not_run, reached
from benchmarks.unlearning.fitting import rates
from benchmarks.unlearning.report import END, START, markdown, update_page
from benchmarks.unlearning.results import Gathered, merged, read_json, write_json

CELL = {
    "problem": "images-cnn",
    "set": "random",
    "m": 100,
    "originals": 3,
    "retrained": 5,
    "floor": {"U": 0.2, "R": 0.01, "test": 0.2},
    "targets": {"accuracy_U": 0.9, "accuracy_R": 1.0, "accuracy_test": 0.86, "membership": 0.5},
    "relearning": 7,
}
AT_THE_BARS = {
    "floors": 1.25,
    "membership_off": -0.1,
    "accuracy_test": 0.8501,
    "kl_R": 0.08,
    "accuracy_R": 0.9701,
    "share": 0.13,
}


def row(method: str = "matching", **changed: object) -> dict[str, object]:
    place = {"problem": "images-cnn", "set": "random"}
    figures: dict[str, object] = {"method": method, "group": "own", "models": 3, "accepted": 2, **AT_THE_BARS}
    return place | figures | changed


def test_what_is_at_the_bars_misses_none():
    assert missed_bars(CELL, row()) == []


@pytest.mark.parametrize(
    ("key", "value", "missed"),
    [
        ("floors", 1.26, "KL on U"),
        ("floors", None, "KL on U"),
        ("membership_off", 0.11, "membership"),
        ("membership_off", -0.11, "membership"),
        ("accuracy_test", 0.849, "test accuracy"),
        ("kl_R", 0.081, "KL on R"),
        ("accuracy_R", 0.969, "accuracy on R"),
        ("share", 0.131, "cost"),
    ],
)
def test_what_is_beyond_a_bar_misses_it(key, value, missed):
    assert missed_bars(CELL, row(**{key: value})) == [missed]


def test_a_training_of_few_epochs_leaves_more_time():
    cell = CELL | {"problem": "intents-encoder"}
    assert missed_bars(cell, row(share=0.25)) == []
    assert missed_bars(cell, row(share=0.26)) == ["cost"]


def test_the_cells_that_meet_a_bar_are_counted():
    cells = [CELL | {"set": kind} for kind in ("random", "cluster", "backdoor")]
    rows = [row(set="random"), row(set="cluster", floors=2.0, share=0.2), row("newton", set="backdoor")]
    assert reached(cells, rows) == {
        "matching": {
            "KL on U": 1,
            "membership": 2,
            "test accuracy": 2,
            "KL on R": 2,
            "accuracy on R": 2,
            "cost": 1,
            "all bars": 1,
            "cells": 2,
        }
    }


def test_what_was_not_run_is_named():
    missing = not_run([CELL])
    assert "images-cnn: random" not in missing
    assert {"images-cnn: backdoor", "images-cnn-whole: random"} <= set(missing)


def gathered(*, kind: str, floors: float = 1.0) -> Gathered:
    place = {"problem": "images-cnn", "set": kind}
    gate = place | {"method": "matching", "group": "own", "quality": "good", "models": 3, "accepted": 2}
    return Gathered([CELL | place], [row(floors=floors) | place], [gate], rates([]))


def test_figures_of_cells_that_were_not_run_stay(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, merged(read_json(path), gathered(kind="random", floors=1.0)))
    write_json(path, merged(read_json(path), gathered(kind="cluster", floors=2.0)))
    write_json(path, merged(read_json(path), gathered(kind="random", floors=3.0)))
    found = read_json(path)
    assert {one["set"]: one["floors"] for one in found["rows"]} == {"cluster": 2.0, "random": 3.0}
    assert len(found["cells"]) == len(found["gate"]) == 2


def test_a_file_of_another_kind_is_not_taken_over(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"groups": []}), encoding="utf-8")
    assert read_json(path) is None
    assert read_json(tmp_path / "missing.json") is None


def test_json_has_four_digits_and_null_for_what_is_not_finite(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, merged(None, gathered(kind="random", floors=float("inf"))))
    text = path.read_text(encoding="utf-8")
    assert json.loads(text)["rows"][0]["floors"] is None
    assert "Infinity" not in text


def test_the_page_keeps_what_stands_around_the_figures(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{START}\nold\n{END}\nafter\n", encoding="utf-8")
    update_page(page, "new")
    assert page.read_text(encoding="utf-8") == f"before\n\n{START}\n\nnew\n\n{END}\nafter\n"


def test_rates_of_all_cells_stay_where_the_store_holds_fewer():
    first, second = gathered(kind="random"), gathered(kind="cluster")
    both = Gathered(first.cells + second.cells, first.rows + second.rows, [], {"of": "both"})
    before = merged(None, both)
    assert merged(before, second)["rates"] == {"of": "both"}
    assert merged(before, both)["rates"] == {"of": "both"}
    assert merged(merged(None, first), first)["rates"] == first.rates


def test_the_tables_say_bars_floors_gate_and_cells():
    text = markdown(merged(None, gathered(kind="random", floors=1.3)))
    assert "| images-cnn | random | KL on U |" in text
    assert "Not run: images-cnn: mislabelled;" in text
    assert "| matching | 1.3 |" in text
    assert "| images-cnn | random | 2/3 | 0/0 | 0/0 | 0/0 | 2/3 | 0/0 | 0/0 |" in text
    assert "### images-cnn: random, m = 100" in text
    # What misses its bar is bold.
    assert "| matching | **1.3** |" in text
    assert "| 0.13 | 2/3 |" in text


def test_the_gate_is_told_beside_its_bars():
    results = merged(None, gathered(kind="random"))
    kinds = ("good", "bad", "grossly_bad", "nothing", "sabotaged", "retrained")
    errors = {"cells": 2} | {kind: {"accepted": 9, "models": 10} for kind in kinds}
    columns = dict.fromkeys(("on_fitted_cells", "on_other_cells", "leave_one_cell_out"), errors)
    text = markdown(results | {"rates": {"limits": {"drift": 1.5}, "fitted_on": "images-cnn: random", **columns}})
    assert "The limits: drift 1.5. They were fitted on images-cnn: random." in text
    assert "| good | 9/10 | 9/10 | 9/10 | at least 90 % |" in text
