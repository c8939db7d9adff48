from __future__ import annotations

import json

import pytest

from benchmarks.unlearning.report import END, START, markdown, update_page, write_json
from benchmarks.unlearning.summary import gate_summary, groups, missed_bars, missed_by


def network(seed: int = 0, **changed: object) -> dict[str, object]:
    line: dict[str, object] = {
        "key": f"network-{seed}",
        "part": "networks",
        "problem": "images-cnn",
        "size": "10",
        "seed": seed,
        "strategy": "full_kfac",
        "m": 10,
        "divergence": 0.02,
        "floor": 0.02,
        "test_accuracy_off": 0.01,
        "membership_off": 0.05,
        "retrained": {"test_accuracy": 0.9, "forget_loss": 0.3},
        "verdict": "accepted",
        "reasons": [],
    }
    return line | changed


def convex(**changed: object) -> dict[str, object]:
    line = network(part="convex", strategy="two_steps", key="convex")
    return (
        line | {"distance": 1e-3, "gradient_ratio": 1e-3, "test_accuracy_off": 0.005, "membership_off": 0.005} | changed
    )


@pytest.mark.parametrize("line", [network(), convex(), convex(size="half_class", distance=1e-2)])
def test_what_is_at_its_bars_meets_them(line):
    assert missed_by(line) == []


@pytest.mark.parametrize(
    ("line", "missed"),
    [
        (network(divergence=0.021), "divergence"),
        (network(test_accuracy_off=0.011), "test_accuracy_off"),
        (network(membership_off=0.051), "membership_off"),
        (network(membership_off=float("nan")), "membership_off"),
        (convex(distance=1.1e-3), "distance"),
        (convex(size="half_class", distance=1.1e-2), "distance"),
        (convex(gradient_ratio=1.1e-3), "gradient_ratio"),
        (convex(test_accuracy_off=0.006), "test_accuracy_off"),
        (convex(membership_off=0.006), "membership_off"),
    ],
)
def test_what_is_beyond_a_bar_misses_it(line, missed):
    assert missed_by(line) == [missed]


def test_what_was_not_updated_misses_no_bar_of_networks():
    assert missed_by(network(divergence=None, verdict="refused", reasons=["not_solved"])) == []


def test_the_convex_part_has_a_missed_bar_where_there_is_no_update():
    assert missed_bars([convex(divergence=None, reasons=["not_solved"])]) == [
        "images-cnn m=10 seed 0: no update (not_solved)"
    ]


def test_networks_are_held_to_the_mean_of_what_was_accepted():
    lines = [network(0, divergence=0.01), network(1, divergence=0.03), network(2, divergence=0.9, verdict="refused")]
    assert missed_bars(lines) == []
    assert len(missed_bars([network(0, divergence=0.01), network(1, divergence=0.04)])) == 1


def test_baselines_are_no_updates_and_miss_nothing():
    lines = [network(strategy="gradient_ascent", divergence=0.9)]
    del lines[0]["verdict"], lines[0]["reasons"]
    assert missed_bars(lines) == []


def test_the_gate_s_shares():
    lines = [
        network(0),
        network(1, divergence=0.03),
        network(2, divergence=0.03, verdict="refused", reasons=["class_share"]),
        network(3, verdict="refused", reasons=["class_share", "not_solved"]),
    ]
    found = gate_summary(lines)
    assert found["refused_share"] == 0.5
    assert found["accepted_missing_bars_share"] == 0.5
    assert found["meeting_bars"] == 2
    assert found["meeting_bars_refused_share"] == 0.5
    assert found["reasons"] == {"class_share": 2, "not_solved": 1}


def test_groups_have_mean_and_spread_over_seeds():
    (found,) = groups([network(0, divergence=0.01), network(1, divergence=0.03), network(2, divergence=0.02)])
    assert found["divergence"] == pytest.approx([0.02, 0.01])
    assert found["cases"] == 3
    assert found["accepted_missing_bars"] == 1


def test_a_page_keeps_what_is_around_its_figures(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n", encoding="utf-8")
    results = write_json(tmp_path / "results.json", [network(), convex()], {})
    update_page(page, markdown(results))
    update_page(page, markdown(results))
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("images-cnn") >= 2
    assert text.count(START) == text.count(END) == 1


def test_what_the_cases_of_a_removal_share_is_written_once(tmp_path):
    lines = [network(0), network(0, strategy="full_ggn"), network(1), convex()]
    path = tmp_path / "results.json"
    found = json.loads((write_json(path, lines, {}), path.read_text(encoding="utf-8"))[1])
    assert [(one["problem"], one["seed"]) for one in found["removals"]] == [
        ("images-cnn", 0),
        ("images-cnn", 1),
        ("images-cnn", 0),
    ]
    assert found["removals"][0]["retrained"] == {"test_accuracy": 0.9, "forget_loss": 0.3}
    assert len(found["cases"]) == len(lines)
    assert all("retrained" not in one for one in found["cases"])
    assert [one["divergence"] for one in found["cases"]] == [0.02] * 4
