from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from gate_evidence import GOOD, codes
from hypothesis import given, settings
from hypothesis import strategies as st

from oubli.components.gate.capacity import Assumptions, DeletionCapacity, PrivacyTarget
from oubli.components.gate.evidence import (
    MembershipEvidence,
)
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.rules import RefusalCode
from oubli.components.gate.smoothness import Smoothness
from oubli.components.gate.verdict import judge
from oubli.components.measures.evaluation import Evaluation


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


def test_the_retained_gradient_of_a_network_may_rise_to_the_limit_and_no_further():
    network = replace(GOOD, convex=False)
    assert codes(replace(network, gradient_after=1.25e-3)) == []
    risen = replace(network, gradient_after=1.26e-3)
    assert codes(risen) == [RefusalCode.RETAINED_GRADIENT_ROSE]
    assert "rose from 0.001 to 0.00126; the limit is 0.00125" in judge(risen, GateLimits()).reasons[0].sentence
    assert codes(replace(network, gradient_after=1.1e-3), GateLimits(gradient_rise=0.0)) == [
        RefusalCode.RETAINED_GRADIENT_ROSE
    ]


def test_that_of_a_convex_model_may_not_rise():
    good = GOOD
    risen = replace(good, gradient_after=1.01e-3)
    assert codes(risen) == [RefusalCode.RETAINED_GRADIENT_ROSE]
    assert "rose from 0.001 to 0.00101; the limit is 0.001" in judge(risen, GateLimits()).reasons[0].sentence
    assert codes(replace(good, gradient_before=1e-12, gradient_after=1e-9)) == []


def test_the_step_of_a_convex_model_must_leave_little_of_the_retained_gradient():
    assert codes(replace(GOOD, gradient_after=1e-5)) == []
    short = replace(GOOD, gradient_after=1.1e-5)
    assert codes(short) == [RefusalCode.RETAINED_GRADIENT_REMAINS]
    assert "from 0.001 to 1.1e-05; at most 1e-05 may be left" in judge(short, GateLimits()).reasons[0].sentence
    assert codes(short, GateLimits(convex_gradient_fraction=0.1)) == []
    assert codes(short, GateLimits(gradient_floor=2e-5)) == []
    assert codes(replace(short, convex=False)) == []


def test_a_model_that_was_not_at_a_minimum_is_refused():
    limit = GateLimits().gradient_ratio
    at_limit = replace(GOOD, model_gradient=limit * 2e-3, removal_gradient=2e-3)
    assert codes(at_limit) == []
    above = replace(at_limit, model_gradient=limit * 2.1e-3)
    assert codes(above) == [RefusalCode.MODEL_NOT_AT_MINIMUM]
    sentence = judge(above, GateLimits()).reasons[0].sentence
    assert f"is {limit * 2.1e-3:.3g}, that of the removal 0.002; the limit is {limit:g} times" in sentence
    assert codes(above, GateLimits(gradient_ratio=2 * limit)) == []
    assert codes(replace(at_limit, model_gradient=1e-7, removal_gradient=0.0)) == []


def test_a_network_may_not_lose_too_much_of_a_class():
    limit = GateLimits().class_share
    network = replace(GOOD, convex=False, class_shares={3: limit, 5: 0.1})
    assert codes(network) == []
    taken = replace(network, class_shares={3: 0.9 * limit, 5: 1.2 * limit})
    assert codes(taken) == [RefusalCode.CLASS_SHARE]
    assert f"{1.2 * limit:.1%} of the training samples of class 5" in judge(taken, GateLimits()).reasons[0].sentence
    assert codes(taken, GateLimits(class_share=1.2 * limit)) == []
    assert codes(replace(taken, convex=True)) == []
    assert codes(replace(taken, class_shares={})) == []


def test_removed_samples_of_a_network_may_not_still_be_recognised():
    """Training told its samples with .64: of those that it tells with .60, .46 is expected once they are forgotten."""
    found = MembershipEvidence(before=0.60, after=0.51, retained=0.64)
    assert found.expected == pytest.approx(0.46)
    network = replace(GOOD, convex=False, membership=found)
    assert codes(network) == []
    kept = replace(network, membership=replace(found, after=0.52))
    assert codes(kept) == [RefusalCode.STILL_RECOGNISED]
    sentence = judge(kept, GateLimits()).reasons[0].sentence
    assert "an area of 0.520 (before: 0.600)" in sentence
    assert "about 0.460 is expected" in sentence
    assert codes(kept, GateLimits(membership_left=0.06)) == []
    assert codes(replace(kept, convex=True)) == []
    # Where nothing was memorised there is nothing to undo.
    assert codes(replace(network, membership=MembershipEvidence(0.53, 0.53, 0.51))) == []
    # What cannot be told better than by chance is not recognised.
    assert codes(replace(network, membership=MembershipEvidence(0.45, 0.50, 0.64))) == []
    assert codes(replace(network, membership=replace(found, after=math.nan))) == [RefusalCode.STILL_RECOGNISED]


def test_a_spent_capacity_is_refused():
    account = DeletionCapacity(PrivacyTarget(1.0, 1e-5), Smoothness(1.0, 1.0), 0.5, samples=1000, max_noise=1e-2)
    known = Assumptions(*[True] * 5)
    last = account.capacity
    assert codes(replace(GOOD, capacity=account.statement(last, known))) == []
    spent = replace(GOOD, capacity=account.statement(last + 1, known))
    assert codes(spent) == [RefusalCode.CAPACITY_SPENT]
    sentence = judge(spent, GateLimits()).reasons[0].sentence
    assert f"{last + 1} samples were removed since training; the capacity is {last}:" in sentence
    assert "at most 0.01 is allowed" in sentence


def test_a_chain_may_not_lose_what_no_single_removal_may():
    """0.5 points a removal: each passes against its parent, the third does not against the trained model."""
    accuracies = [0.950, 0.945, 0.940, 0.935]
    figures = [Evaluation(1000, 0.2, one) for one in accuracies]
    found = [
        codes(replace(GOOD, test_original=figures[0], test_before=before, test_after=after))
        for before, after in itertools.pairwise(figures)
    ]
    assert found == [[], [], [RefusalCode.ACCURACY_FELL_SINCE_TRAINING]]
    without = replace(GOOD, test_before=Evaluation(9, 2.05, None), test_after=Evaluation(9, 2.12, None))
    assert codes(replace(without, test_original=Evaluation(9, 2.0, None))) == [RefusalCode.LOSS_ROSE_SINCE_TRAINING]
    # The first removal is judged once, not twice by the same figures.
    bad = replace(GOOD, test_original=GOOD.test_before, test_after=Evaluation(1000, 0.2, 0.5))
    assert codes(bad) == [RefusalCode.TEST_ACCURACY_FELL]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad):
    assert codes(replace(GOOD, gradient_after=bad)) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, test_after=Evaluation(10, bad, 0.95))) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, weights_finite=False)) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, model_gradient=bad)) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, removal_gradient=bad)) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, test_original=Evaluation(10, bad, 0.95))) == [RefusalCode.NOT_FINITE]
