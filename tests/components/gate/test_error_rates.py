from __future__ import annotations

from oubli.components.gate.error_rates import NETWORKS, ErrorRates


def test_the_rates_in_words():
    rates = ErrorRates(0.1, 0.25, 0.04, 40, "small networks")
    assert rates.sentence == (
        "Of 40 models (small networks), these rules refused 10% of the good, and accepted 25% of the bad and 4% of the "
        "grossly bad."
    )


def test_rates_of_other_rules_are_not_passed_off_as_these():
    assert "an earlier form of these rules refused 10% of the good" in NETWORKS.sentence
