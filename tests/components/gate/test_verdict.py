from __future__ import annotations

from dataclasses import replace

import pytest
from gate_evidence import GOOD, codes

from oubli.components.gate.capacity import Assumptions, DeletionCapacity, PrivacyTarget
from oubli.components.gate.evidence import (
    EmptyBlockEvidence,
    IndefiniteEvidence,
    MembershipEvidence,
    UnsolvedEvidence,
)
from oubli.components.gate.limits import GateLimits
from oubli.components.gate.rules import RefusalCode
from oubli.components.gate.smoothness import Smoothness
from oubli.components.gate.verdict import Decision, judge
from oubli.components.measures.evaluation import Evaluation


def test_a_good_update_is_accepted():
    verdict = judge(GOOD, GateLimits())
    assert verdict.decision is Decision.ACCEPTED
    assert verdict.reasons == ()


def test_indefinite_curvature_is_refused_with_its_finding():
    verdict = judge(IndefiniteEvidence("Smallest eigenvalue -0.5, damping 0.1."), GateLimits())
    assert verdict.decision is Decision.REFUSED
    (reason,) = verdict.reasons
    assert reason.code is RefusalCode.CURVATURE_INDEFINITE
    assert reason.sentence.startswith("Smallest eigenvalue -0.5, damping 0.1. No update was made. Retrain")


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


def test_every_broken_rule_is_listed():
    evidence = replace(GOOD, test_after=Evaluation(1000, 9.0, 0.1), gradient_after=1.0)
    assert codes(evidence) == [RefusalCode.TEST_ACCURACY_FELL, RefusalCode.RETAINED_GRADIENT_ROSE]


def test_what_was_not_measured_is_listed():
    verdict = judge(GOOD, GateLimits())
    assert [one.split(":")[0] for one in verdict.not_checked] == [
        "Utility since training",
        "Model at a minimum",
        "Deletion capacity",
    ]
    network = judge(replace(GOOD, convex=False, model_gradient=0.0), GateLimits())
    assert [one.split(":")[0] for one in network.not_checked] == [
        "Utility since training",
        "Model at a minimum",
        "Share of a class",
        "Membership of the removed samples",
        "Deletion capacity",
    ]
    account = DeletionCapacity(PrivacyTarget(1.0, 1e-5), Smoothness(1.0, 0.0), 0.5, samples=10, max_noise=1.0)
    whole = replace(
        GOOD,
        convex=False,
        test_original=GOOD.test_before,
        model_gradient=0.0,
        removal_gradient=1.0,
        class_shares={},
        membership=MembershipEvidence(0.5, 0.5, 0.5),
        capacity=account.statement(1, Assumptions(*[False] * 5)),
    )
    assert judge(whole, GateLimits()).not_checked == ()
