from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oubli.components.errors import ConfigurationError
from oubli.components.evaluation import Evaluation
from oubli.components.gate import (
    EmptyBlockEvidence,
    GateLimits,
    IndefiniteEvidence,
    Outcome,
    RefusalCode,
    UnsolvedEvidence,
    UpdateEvidence,
    judge,
)

GOOD = UpdateEvidence(
    convex=True,
    weights_finite=True,
    test_before=Evaluation(1000, 0.20, 0.950),
    test_after=Evaluation(1000, 0.21, 0.949),
    gradient_before=1e-3,
    gradient_after=1e-6,
)


def codes(evidence, limits=None):
    verdict = judge(evidence, limits or GateLimits())
    assert (verdict.outcome is Outcome.REFUSED) == bool(verdict.reasons)
    assert all("Retrain" in reason.sentence for reason in verdict.reasons)
    return [reason.code for reason in verdict.reasons]


def test_a_good_update_is_accepted():
    verdict = judge(GOOD, GateLimits())
    assert verdict.outcome is Outcome.ACCEPTED
    assert verdict.reasons == ()


@settings(deadline=None)
@given(before=st.integers(0, 1000), after=st.integers(0, 1000), allowed=st.integers(0, 100))
def test_accuracy_may_fall_to_the_limit_and_no_further(before, after, allowed):
    evidence = replace(
        GOOD, test_before=Evaluation(1000, 0.2, before / 1000), test_after=Evaluation(1000, 0.2, after / 1000)
    )
    refused = codes(evidence, GateLimits(accuracy_drop=allowed / 1000)) == [RefusalCode.TEST_ACCURACY_FELL]
    assert refused == (before - after > allowed)


def test_the_accuracy_sentence_has_its_figures():
    evidence = replace(GOOD, test_after=Evaluation(1000, 0.2, 0.93))
    (reason,) = judge(evidence, GateLimits()).reasons
    assert reason.code is RefusalCode.TEST_ACCURACY_FELL
    assert "0.0200, from 0.9500 to 0.9300; the limit is 0.0100" in reason.sentence


def test_without_accuracy_the_test_loss_decides():
    evidence = replace(GOOD, test_before=Evaluation(10, 2.0, None), test_after=Evaluation(10, 2.09, None))
    assert codes(evidence) == []
    worse = replace(evidence, test_after=Evaluation(10, 2.11, None))
    assert codes(worse) == [RefusalCode.TEST_LOSS_ROSE]
    assert codes(worse, GateLimits(loss_rise=0.1)) == []
    (reason,) = judge(worse, GateLimits()).reasons
    assert "from 2 to 2.11; the limit is a rise of 5.00%" in reason.sentence


def test_the_retained_gradient_may_not_rise_on_a_convex_model():
    risen = replace(GOOD, gradient_after=2e-3)
    assert codes(risen) == [RefusalCode.RETAINED_GRADIENT_ROSE]
    assert codes(replace(risen, convex=False)) == []
    assert "from 0.001 to 0.002; the limit is 0.001" in judge(risen, GateLimits()).reasons[0].sentence
    assert codes(replace(GOOD, gradient_before=1e-12, gradient_after=1e-9)) == []


def test_indefinite_curvature_is_refused_with_its_finding():
    verdict = judge(IndefiniteEvidence("Smallest eigenvalue -0.5, damping 0.1."), GateLimits())
    assert verdict.outcome is Outcome.REFUSED
    (reason,) = verdict.reasons
    assert reason.code is RefusalCode.CURVATURE_INDEFINITE
    assert reason.sentence.startswith("Smallest eigenvalue -0.5, damping 0.1. No update was made. Retrain")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad):
    assert codes(replace(GOOD, gradient_after=bad)) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, test_after=Evaluation(10, bad, 0.95))) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, weights_finite=False)) == [RefusalCode.NOT_FINITE]


def test_every_broken_rule_is_listed():
    evidence = replace(GOOD, test_after=Evaluation(1000, 9.0, 0.1), gradient_after=1.0)
    assert codes(evidence) == [RefusalCode.TEST_ACCURACY_FELL, RefusalCode.RETAINED_GRADIENT_ROSE]


@pytest.mark.parametrize("name", ["accuracy_drop", "loss_rise", "gradient_floor"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_limits_must_be_usable(name, value):
    with pytest.raises(ConfigurationError, match=f"Gate limit {name}"):
        GateLimits(**{name: value})


@pytest.mark.parametrize(
    ("evidence", "code", "words"),
    [
        (UnsolvedEvidence("Relative residual 0.2, tolerance 0.001."), RefusalCode.NOT_SOLVED, "residual 0.2"),
        (EmptyBlockEvidence(candidates=66), RefusalCode.NOTHING_SELECTED, "none of 66 slices"),
    ],
)
def test_an_update_that_was_not_made_is_refused(evidence, code, words):
    assert codes(evidence) == [code]
    assert words in judge(evidence, GateLimits()).reasons[0].sentence
