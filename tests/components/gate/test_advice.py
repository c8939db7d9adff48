from __future__ import annotations

from dataclasses import replace

import pytest

from oubli.components.gate.advice import ModelFacts, advice

CONVEX = ModelFacts(True, named_loss=True, predicts=True, validation=False, held_out=1000, relative_bound=1e-8)
NETWORK = replace(CONVEX, convex=False, validation=True, relative_bound=None)


def test_nothing_more_is_said_of_a_model_that_lacks_nothing():
    assert [one.split(",")[0] for one in advice(CONVEX)] == ["Removals end at the minimiser without the samples"]
    assert advice(NETWORK) == ("Removals are by matching.",)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(CONVEX, relative_bound=0.2), "stopped short of the minimiser"),
        (replace(CONVEX, relative_bound=None), "Without l2"),
        (replace(CONVEX, held_out=40), "There are 40 test samples"),
        (replace(NETWORK, held_out=40), "There are 40 test samples"),
        (replace(NETWORK, validation=False), "no validation split"),
        (replace(NETWORK, predicts=False), "only beside a retrained model"),
        (replace(CONVEX, one_by_one=True), "vmap cannot run"),
        (replace(NETWORK, one_by_one=True), "vmap cannot run"),
        (replace(CONVEX, named_loss=False, predicts=False), "nearest to their own class's mean"),
        (replace(NETWORK, named_loss=False, predicts=False), "nearest to their own class's mean"),
        (replace(NETWORK, named_loss=False, predicts=False), "accepted only beside a retrained model"),
    ],
)
def test_what_will_be_missed_is_said_in_advance(facts, words):
    assert any(words in one for one in advice(facts))


def test_of_a_loss_of_its_own_no_matching_is_promised():
    own = advice(replace(NETWORK, named_loss=False, predicts=False))
    assert not any("are by matching" in one for one in own)
    assert "else retrain" in own[0]
