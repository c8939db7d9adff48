from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from gate_evidence import GOOD, NETWORK, accuracy, codes
from hypothesis import given, settings
from hypothesis import strategies as st
from standings import FORGOTTEN, NEVER_SAW, nothing_done

from oubli.components.gate.capacity import Assumptions, DeletionCapacity, PrivacyTarget
from oubli.components.gate.evidence import Beside, MembershipEvidence, Step, Utility
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.refusals import RefusalCode
from oubli.components.gate.rules import remarks
from oubli.components.gate.smoothness import Smoothness
from oubli.components.gate.verdict import judge
from oubli.components.measures.paired import Paired

EQUAL = replace(GOOD, l2=1e-2, weight_norm=1.0)
"""Within 1e-4 of retraining, by proof."""


@settings(deadline=None)
@given(before=st.integers(0, 1000), after=st.integers(0, 1000), allowed=st.integers(0, 100))
def test_accuracy_may_fall_to_the_limit_and_no_further(before, after, allowed):
    evidence = replace(GOOD, utility=(accuracy(before / 1000, after / 1000),))
    refused = codes(evidence, GateLimits(accuracy_drop=allowed / 1000)) == [RefusalCode.TEST_ACCURACY_FELL]
    assert refused == (before - after > allowed)


def test_the_accuracy_sentence_has_its_figures():
    lost = replace(accuracy(0.95, 0.92, error=0.005), left_out=7)
    (reason,) = judge(replace(GOOD, utility=(lost,)), GateLimits()).reasons
    assert reason.code is RefusalCode.TEST_ACCURACY_FELL
    assert "0.9200, that of the parent 0.9500 (on 1000 test samples, 7 of removed classes" in reason.finding
    assert "fell by at least 0.0218, at a confidence of 95 %; the limit is 0.0100" in reason.finding


def test_one_prediction_in_forty_is_no_reason_to_refuse():
    """2.5 points, and the test set cannot tell them from none."""

    def lost(count):
        # `count` right before and wrong after, none the other way about: McNemar's error.
        return accuracy(1.0, 1 - count / 40, n=40, error=math.sqrt(count - count**2 / 40) / 40)

    assert codes(replace(GOOD, utility=(lost(1),))) == []
    assert codes(replace(GOOD, utility=(lost(3),))) == []
    assert codes(replace(GOOD, utility=(lost(8),))) == [RefusalCode.TEST_ACCURACY_FELL]


def test_accuracy_is_held_against_the_retrained_model_where_there_is_one():
    """The parent was better, and so was the trained model; retraining loses as much."""
    others = accuracy(0.95, 0.90), accuracy(0.96, 0.90, beside=Beside.TRAINED)
    assert len(codes(replace(GOOD, utility=others))) == 2
    retrained = accuracy(0.905, 0.90, beside=Beside.RETRAINED)
    assert codes(replace(GOOD, utility=(*others, retrained))) == []
    assert codes(replace(GOOD, utility=(*others, accuracy(0.95, 0.90, beside=Beside.RETRAINED)))) == [
        RefusalCode.TEST_ACCURACY_FELL
    ]


def test_without_accuracy_the_test_loss_decides():
    def loss(after: float, error: float = 0.0) -> Utility:
        return Utility(Beside.PARENT, Paired(10, 2.0, after, error), by_loss=True)

    assert codes(replace(GOOD, utility=(loss(2.09),))) == []
    worse = replace(GOOD, utility=(loss(2.11),))
    assert codes(worse) == [RefusalCode.TEST_LOSS_ROSE]
    assert codes(worse, GateLimits(loss_rise=0.1)) == []
    assert codes(replace(GOOD, utility=(loss(2.11, error=0.01),))) == []
    assert "is 2.11, that of the parent 2 " in judge(worse, GateLimits()).reasons[0].finding


def test_a_chain_may_not_lose_what_no_single_removal_may():
    """0.5 points a removal: each passes against its parent, the third does not against the trained model."""
    found = [
        codes(replace(GOOD, utility=(accuracy(before, after), accuracy(0.950, after, beside=Beside.TRAINED))))
        for before, after in itertools.pairwise([0.950, 0.945, 0.940, 0.935])
    ]
    assert found == [[], [], [RefusalCode.ACCURACY_FELL_SINCE_TRAINING]]


def test_what_equals_retraining_is_not_refused_for_its_accuracy():
    lost = replace(EQUAL, utility=(accuracy(0.95, 0.60),))
    assert codes(lost) == []
    assert any("equal those of retraining to 0.0001 of their norm" in one for one in remarks(lost, GateLimits()))
    # Beyond the limit, or where noise was added, it is.
    assert RefusalCode.TEST_ACCURACY_FELL in codes(lost, GateLimits(distance=1e-5))
    account = DeletionCapacity(PrivacyTarget(1.0, 1e-5), Smoothness(1.0, 0.1), 0.5, samples=1000, max_noise=1.0)
    noisy = account.statement(1, Assumptions(*[True] * 5), noise=0.1)
    assert codes(replace(lost, capacity=noisy)) == [RefusalCode.TEST_ACCURACY_FELL]
    # A network has no such proof.
    assert codes(replace(lost, convex=False, acceptance=FORGOTTEN)) == [RefusalCode.TEST_ACCURACY_FELL]


def test_rows_that_were_left_out_are_told():
    some = replace(GOOD, utility=(replace(accuracy(0.9, 0.9), left_out=3),))
    assert remarks(some, GateLimits())[0].startswith("3 test samples of classes or subjects that are removed were left")
    assert remarks(GOOD, GateLimits()) == ()


def test_a_convex_update_must_end_near_retraining():
    assert codes(EQUAL) == []
    # 2e-5 / 1e-2 = 2e-3 of the norm.
    far = replace(EQUAL, gradient_before=1.0, gradient_after=2e-5)
    assert codes(far) == [RefusalCode.FAR_FROM_RETRAINING]
    (reason,) = judge(far, GateLimits()).reasons
    assert "may be 0.002 of their norm from those of retraining; at most 0.001 is allowed" in reason.finding
    assert "more steps" in reason.remedy
    assert codes(far, GateLimits(distance=3e-3)) == []
    # Gradients that count as zero are at the minimum, whatever l2.
    assert codes(replace(EQUAL, l2=1e-9)) == []


def test_the_step_of_a_convex_model_must_leave_little_of_the_retained_gradient():
    """Removing one of many samples moves the weights by less than the limit: doing nothing must not pass."""
    assert codes(replace(GOOD, gradient_after=1e-5)) == []
    short = replace(GOOD, gradient_after=1.1e-5)
    assert codes(short) == [RefusalCode.RETAINED_GRADIENT_REMAINS]
    assert "from 0.001 to 1.1e-05; at most 1e-05 may be left" in judge(short, GateLimits()).reasons[0].finding
    assert codes(short, GateLimits(convex_gradient_fraction=0.1)) == []
    assert codes(short, GateLimits(gradient_floor=2e-5)) == []
    one_of_many = replace(EQUAL, gradient_before=5e-6, gradient_after=5e-6)
    assert one_of_many.relative_bound < GateLimits().distance
    assert codes(one_of_many) == [RefusalCode.RETAINED_GRADIENT_REMAINS]
    # What rounding alone leaves is no rest of a gradient.
    assert codes(replace(one_of_many, weight_norm=1e3)) == []


def test_a_convex_model_that_was_not_at_a_minimum_is_judged_by_where_the_update_ends():
    stray = replace(EQUAL, gradient_before=0.5, model_gradient=0.5, removal_gradient=1e-4)
    assert codes(stray) == []
    assert codes(replace(stray, gradient_after=1e-3)) == [RefusalCode.FAR_FROM_RETRAINING]


def test_of_a_network_gradients_classes_and_membership_alone_are_evidence_only():
    odd = replace(
        NETWORK,
        gradient_after=1.0,
        model_gradient=1.0,
        removal_gradient=1e-6,
        class_shares={3: 0.9},
        membership=MembershipEvidence(0.9, 0.9, 0.9),
    )
    assert codes(odd) == []


def test_an_auditor_that_diverged_is_named_and_what_helps():
    failed = "The auditor 'judge' diverged: weights are NaN."
    (reason,) = judge(replace(NETWORK, acceptance=None, auditor_failed=failed), GateLimits()).reasons
    assert reason.code is RefusalCode.AUDITOR_FAILED
    assert reason.finding == failed
    assert "learning rate" in reason.remedy
    assert "compare_with_retraining" in reason.remedy


def test_a_network_that_nothing_was_compared_with_is_refused():
    (reason,) = judge(replace(NETWORK, acceptance=None), GateLimits()).reasons
    assert reason.code is RefusalCode.NOT_COMPARED
    assert "compare_with_retraining" in reason.remedy
    # For a loss that auditors cannot judge, membership on a retrained model serves.
    known = MembershipEvidence(0.7, 0.55, 0.7, retrained=0.5)
    assert codes(replace(NETWORK, acceptance=None, membership=known)) == []
    assert codes(replace(GOOD, acceptance=None)) == []


@pytest.mark.parametrize(
    ("figure", "value", "code", "words"),
    [
        ("excess_divergence", 0.5, RefusalCode.DISAGREES, "by 0.50 of their standard deviations; at most 0.41"),
        ("rank", 0.75, RefusalCode.TOO_SURE, "rank 0.25 above the middle; at most 0.08"),
        ("as_labelled", 0.9, RefusalCode.KNOWS_LABELS, "30.0% more than on held-out samples; at most 27.6%"),
        ("rank_over_classes", 0.05, RefusalCode.PUSHED_AWAY, "rank at 0.05 among all pairs"),
        ("loss_removed", 7.0, RefusalCode.OVERSHOT, "loss on the removed samples is 7,"),
        ("divergence_held_out", 1.0, RefusalCode.DRIFTED, "2.00 times as much as before; at most 1.50"),
    ],
)
def test_what_acceptance_finds_is_told(figure, value, code, words):
    told = replace(NETWORK, acceptance=replace(FORGOTTEN, updated=replace(NEVER_SAW, **{figure: value})))
    (reason,) = judge(told, GateLimits()).reasons
    assert reason.code is code
    assert words in reason.finding


def test_held_out_accuracy_is_told():
    told = replace(NETWORK, acceptance=replace(FORGOTTEN, accuracy=Paired(100, 0.8, 0.7, 0.0)))
    (reason,) = judge(told, GateLimits()).reasons
    assert reason.code is RefusalCode.HELD_OUT_ACCURACY_FELL
    assert "fell by at least 0.1000" in reason.finding


def test_membership_is_held_against_the_retrained_models():
    areas = MembershipEvidence(before=0.9, after=0.75, retained=0.9, retrained=0.6, error=0.05)
    network = replace(NETWORK, membership=areas)
    assert codes(network) == []
    kept = replace(network, membership=replace(areas, after=0.76))
    assert codes(kept) == [RefusalCode.STILL_RECOGNISED]
    assert "area of 0.760 (before: 0.900; on the retrained model: 0.600); at most 0.750" in (
        judge(kept, GateLimits()).reasons[0].finding
    )
    assert codes(kept, GateLimits(membership_off=0.2)) == []
    assert codes(replace(network, membership=replace(areas, after=math.nan))) == [RefusalCode.STILL_RECOGNISED]


def test_what_helps_depends_on_how_the_update_was_made():
    def remedy(step: Step, **changed: float) -> str:
        updated = replace(NEVER_SAW, **changed)
        evidence = replace(NETWORK, step=step, acceptance=replace(FORGOTTEN, updated=updated))
        return judge(evidence, GateLimits()).reasons[0].remedy

    assert "method to 'matching'" in remedy(Step.NEWTON, excess_divergence=1.0)
    assert "use_snapshot to 'never'" in remedy(Step.SNAPSHOT, excess_divergence=1.0)
    assert "surrogate_epochs" in remedy(Step.MATCHING, excess_divergence=1.0)
    assert "larger damping" in remedy(Step.NEWTON, loss_removed=9.0)
    assert "use_snapshot to 'never'" in remedy(Step.SNAPSHOT, loss_removed=9.0)
    assert "matching_steps" in remedy(Step.MATCHING, loss_removed=9.0)


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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad):
    assert codes(replace(GOOD, gradient_after=bad)) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, utility=(accuracy(0.9, bad),))) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, utility=(accuracy(bad, 0.9),))) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, weights_finite=False)) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, model_gradient=bad)) == [RefusalCode.NOT_FINITE]
    assert codes(replace(GOOD, removal_gradient=bad)) == [RefusalCode.NOT_FINITE]


def test_doing_nothing_is_refused_on_a_network_that_memorised():
    found = codes(replace(NETWORK, acceptance=nothing_done()))
    assert found == [RefusalCode.DISAGREES, RefusalCode.TOO_SURE, RefusalCode.KNOWS_LABELS]
