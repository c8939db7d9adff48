from __future__ import annotations

from dataclasses import replace

import pytest
from gate_evidence import GOOD, NETWORK, accuracy, codes
from standings import NEVER_SAW, nothing_done

from oubli.components.gate.capacity import Assumptions, DeletionCapacity, PrivacyTarget
from oubli.components.gate.error_rates import NETWORKS
from oubli.components.gate.evidence import Beside, EmptyBlockEvidence, IndefiniteEvidence, Step, UnsolvedEvidence
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.refusals import RefusalCode
from oubli.components.gate.smoothness import Smoothness
from oubli.components.gate.verdict import Decision, judge


def test_good_updates_are_accepted():
    for evidence in (GOOD, NETWORK):
        verdict = judge(evidence, GateLimits())
        assert verdict.decision is Decision.ACCEPTED
        assert verdict.reasons == ()


def test_indefinite_curvature_is_refused_with_its_finding():
    verdict = judge(IndefiniteEvidence("Smallest eigenvalue -0.5, damping 0.1."), GateLimits())
    assert verdict.decision is Decision.REFUSED
    (reason,) = verdict.reasons
    assert reason.code is RefusalCode.CURVATURE_INDEFINITE
    assert reason.sentence.startswith("Smallest eigenvalue -0.5, damping 0.1. No update was made. Set curvature to")


@pytest.mark.parametrize(
    ("evidence", "code", "words"),
    [
        (UnsolvedEvidence("Relative residual 0.2, tolerance 0.001."), RefusalCode.NOT_SOLVED, "residual 0.2"),
        (UnsolvedEvidence("Diverged.", Step.MATCHING), RefusalCode.NOT_SOLVED, "optimiser and learning rate"),
        (EmptyBlockEvidence(candidates=66), RefusalCode.NOTHING_SELECTED, "none of 66 slices"),
    ],
)
def test_an_update_that_was_not_made_is_refused(evidence, code, words):
    assert codes(evidence) == [code]
    assert words in judge(evidence, GateLimits()).reasons[0].sentence


def test_every_broken_rule_is_listed():
    evidence = replace(GOOD, utility=(accuracy(0.95, 0.1),), gradient_after=1.0)
    assert codes(evidence) == [RefusalCode.TEST_ACCURACY_FELL, RefusalCode.RETAINED_GRADIENT_REMAINS]


def test_nothing_to_forget_is_a_verdict_of_its_own():
    """Whatever the update did, where it is not asked for."""
    original = replace(NETWORK, acceptance=nothing_done(NEVER_SAW), utility=(accuracy(0.9, 0.5),))
    verdict = judge(original, GateLimits())
    assert (verdict.decision, verdict.reasons, verdict.nothing_to_forget) == (Decision.NOTHING_TO_FORGET, (), True)
    asked = judge(original, GateLimits(), record_nothing=False)
    assert (asked.decision, asked.nothing_to_forget) == (Decision.REFUSED, True)
    assert [one.code for one in asked.reasons] == [RefusalCode.TEST_ACCURACY_FELL]
    good = judge(replace(original, utility=()), GateLimits(), record_nothing=False)
    assert (good.decision, good.nothing_to_forget) == (Decision.ACCEPTED, True)
    # A model that remembers, and a convex one, have something to forget.
    for evidence in (NETWORK, GOOD):
        assert not judge(evidence, GateLimits()).nothing_to_forget


def test_a_verdict_by_auditors_tells_its_own_error_rates():
    assert NETWORKS.sentence in judge(NETWORK, GateLimits()).remarks
    retrained = replace(NETWORK, acceptance=replace(nothing_done(), witness=None))
    assert NETWORKS.sentence not in judge(retrained, GateLimits()).remarks
    assert judge(GOOD, GateLimits()).remarks == ()


def test_what_was_not_measured_is_listed():
    def missing(evidence):
        return [one.split(":")[0] for one in judge(evidence, GateLimits()).not_checked]

    assert missing(GOOD) == ["Utility since training", "Distance from retraining", "Deletion capacity"]
    assert missing(replace(GOOD, utility=())) == ["Utility", "Distance from retraining", "Deletion capacity"]
    assert missing(replace(NETWORK, acceptance=None)) == ["Utility since training", "Acceptance", "Deletion capacity"]
    account = DeletionCapacity(PrivacyTarget(1.0, 1e-5), Smoothness(1.0, 0.0), 0.5, samples=10, max_noise=1.0)
    whole = replace(
        GOOD,
        utility=(accuracy(0.9, 0.9, beside=Beside.TRAINED),),
        l2=1e-2,
        weight_norm=1.0,
        capacity=account.statement(1, Assumptions(*[False] * 5)),
    )
    assert missing(whole) == []
