from __future__ import annotations

import math
from dataclasses import replace

import pytest
from standings import FORGOTTEN, NEVER_SAW, REMEMBERS, nothing_done

from oubli.components.gate.acceptance_rules import accept
from oubli.components.gate.limits import AcceptanceLimits
from oubli.components.gate.refusals import RefusalCode
from oubli.components.measures.paired import Paired

# Of 400 samples, chance adds a twentieth of a standard deviation: 1.2816 / 20.
CHANCE = 1.2816 / 20


def broken(statistics, limits=None):
    return [one.rule for one in accept(statistics, limits).broken]


def test_a_removal_that_forgot_is_accepted():
    decision = accept(FORGOTTEN)
    assert decision.accepted
    assert not decision.nothing_to_forget


@pytest.mark.parametrize(
    ("figure", "base", "limit", "rule"),
    [
        ("excess_divergence", 0.0, 0.35 + CHANCE, RefusalCode.DISAGREES),
        ("rank", 0.5, 0.06 + CHANCE / math.sqrt(12), RefusalCode.TOO_SURE),
        ("as_labelled", 0.6, 0.25 + CHANCE * 0.4, RefusalCode.KNOWS_LABELS),
        ("loss_removed", 0.0, 2.5 * (1.0 + 0.5), RefusalCode.OVERSHOT),
    ],
)
def test_each_rule_refuses_by_itself_beyond_its_limit(figure, base, limit, rule):
    def updated(value):
        return replace(FORGOTTEN, updated=replace(NEVER_SAW, **{figure: value}))

    assert broken(updated(base + limit - 1e-9)) == []
    (one,) = accept(updated(base + limit + 1e-6)).broken
    assert (one.rule, one.limit) == (rule, pytest.approx(limit))
    assert one.found == pytest.approx(limit + 1e-6)
    assert broken(updated(math.nan)) == [rule]


def test_a_model_may_not_drift_where_nothing_was_removed():
    def drifted(divergence):
        return replace(FORGOTTEN, updated=replace(NEVER_SAW, divergence_held_out=divergence))

    assert broken(drifted(0.75)) == []
    assert broken(drifted(0.76)) == [RefusalCode.DRIFTED]


def test_a_removal_may_not_push_away_what_it_removes():
    """The witness ranks at 1/2: 0.3 below that, and what chance adds, is allowed."""
    least = 0.5 - 0.3 - CHANCE / math.sqrt(12)
    low = replace(FORGOTTEN, updated=replace(NEVER_SAW, rank=0.01, rank_over_classes=least + 1e-9))
    assert broken(low) == []
    lower = replace(low, updated=replace(low.updated, rank_over_classes=least - 1e-6))
    (one,) = accept(lower).broken
    assert (one.rule, one.limit) == (RefusalCode.PUSHED_AWAY, pytest.approx(least))
    # Where one who never saw them ranks low as well, nothing was pushed.
    assert broken(replace(lower, witness=replace(NEVER_SAW, rank_over_classes=0.3))) == []
    # A retrained judge stands for itself.
    assert broken(replace(lower, witness=None)) == [RefusalCode.PUSHED_AWAY]


def test_accuracy_must_surely_fall():
    drop = Paired(1000, 0.80, 0.78, 0.005)
    assert broken(replace(FORGOTTEN, accuracy=drop)) == [RefusalCode.HELD_OUT_ACCURACY_FELL]
    assert broken(replace(FORGOTTEN, accuracy=replace(drop, error=0.0065))) == []
    assert broken(replace(FORGOTTEN, accuracy=None)) == []


@pytest.mark.parametrize("removed", [1, 5, 50, 400])
def test_doing_nothing_is_never_accepted_on_what_was_memorised(removed):
    """However few the samples, the allowance for chance never reaches what the original has."""
    assert RefusalCode.DISAGREES in broken(nothing_done(removed=removed))
    # Also where but one of the three signs shows it, and membership inference scores below one half, as on mislabelled
    # samples: the rank is that of one who never saw them.
    labels_alone = replace(NEVER_SAW, as_labelled=0.95)
    found = accept(nothing_done(labels_alone, removed))
    assert [one.rule for one in found.broken] == [RefusalCode.KNOWS_LABELS]
    assert not found.nothing_to_forget
    # A few hundredths of the way are not enough either.
    barely = replace(REMEMBERS, excess_divergence=0.96 * REMEMBERS.excess_divergence)
    assert broken(replace(FORGOTTEN, updated=barely, removed=removed))


def test_chance_is_allowed_for_where_few_are_removed():
    few = replace(FORGOTTEN, removed=4, updated=replace(NEVER_SAW, excess_divergence=0.9))
    assert broken(few) == []
    assert broken(replace(few, removed=400)) == [RefusalCode.DISAGREES]
    # At most 0.7 of what the original has.
    assert broken(replace(few, original=replace(REMEMBERS, excess_divergence=1.2))) == [RefusalCode.DISAGREES]


def test_where_the_original_passes_there_was_nothing_to_forget():
    decision = accept(nothing_done(NEVER_SAW))
    assert decision.accepted
    assert decision.nothing_to_forget
    # One sign is enough to the contrary, and there chance does not excuse the original.
    for figure, value in (("excess_divergence", 0.36), ("rank", 0.57), ("as_labelled", 0.86)):
        assert not accept(nothing_done(replace(NEVER_SAW, **{figure: value}), removed=1)).nothing_to_forget
    # An update that overshot is refused all the same, where it is to be judged.
    overshot = replace(FORGOTTEN, original=NEVER_SAW, updated=replace(NEVER_SAW, loss_removed=9.0))
    assert broken(overshot) == [RefusalCode.OVERSHOT]
    assert accept(overshot).nothing_to_forget


def test_a_loss_without_predictions_is_judged_by_the_other_rules():
    blind = replace(NEVER_SAW, as_labelled=None, accuracy=None, rank_over_classes=None)
    regression = replace(
        FORGOTTEN,
        updated=blind,
        original=replace(blind, excess_divergence=2.0),
        judge=blind,
        witness=blind,
        as_labelled_spread=None,
        accuracy=None,
    )
    assert broken(regression) == []
    assert broken(replace(regression, updated=regression.original)) == [RefusalCode.DISAGREES]


def test_limits_are_a_value():
    sure = replace(FORGOTTEN, updated=replace(NEVER_SAW, rank=0.7))
    assert broken(sure) == [RefusalCode.TOO_SURE]
    assert broken(sure, AcceptanceLimits(excess_rank=0.2)) == []
