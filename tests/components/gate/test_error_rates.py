from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from oubli.components.gate.error_rates import NETWORKS, ErrorRates, Share
from oubli.components.gate.limits import AcceptanceLimits

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "unlearning.json"


def test_the_rates_in_words():
    rates = ErrorRates(Share(1, 10), Share(5, 20), Share(0, 30), 3, "from small networks")
    assert rates.sentence == (
        "Of 60 models of 3 removals (from small networks; limits fitted on another network's), these rules refused "
        "1 of 10 (10%) of the good, and accepted 5 of 20 (25%) of the bad and 0 of 30 (0%) of the grossly bad."
    )


def test_the_rates_are_those_that_were_measured_of_the_limits_of_today():
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))["rates"]
    assert measured["limits"] == dataclasses.asdict(AcceptanceLimits())
    others = measured["on_other_cells"]
    good = others["good"]
    assert NETWORKS.removals == others["cells"]
    assert NETWORKS.good_refused == Share(good["models"] - good["accepted"], good["models"])
    assert NETWORKS.bad_accepted == Share(others["bad"]["accepted"], others["bad"]["models"])
    grossly = others["grossly_bad"]
    assert NETWORKS.grossly_bad_accepted == Share(grossly["accepted"], grossly["models"])
