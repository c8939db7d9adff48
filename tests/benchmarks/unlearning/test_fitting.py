from __future__ import annotations

import dataclasses

import pytest

from benchmarks.unlearning.fitting import CANDIDATES, Counted, Errors, added, fitted, leave_one_out, rates
from benchmarks.unlearning.gate import Judged
from oubli.components.gate.acceptance import AcceptanceStatistics, Standing
from oubli.components.gate.limits import AcceptanceLimits

STANDING = Standing(0.5, 0.5, (), (), 0.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0)


def statistics(excess: float) -> AcceptanceStatistics:
    """Of so many samples that chance allows nothing: only the excess divergence can refuse."""
    own = dataclasses.replace(STANDING, excess_divergence=excess)
    original = dataclasses.replace(STANDING, excess_divergence=5.0)
    return AcceptanceStatistics(10**12, 1000, own, original, STANDING, STANDING, 0.5, None)


# many parameters: what a line of the records says.
def judged(
    excess: float | None, quality: str, *, kind: str = "random", method: str = "matching", group: str = "own"
) -> Judged:
    found = None if excess is None else statistics(excess)
    return Judged("images-cnn", kind, method, group, 0, found, quality, {})


MODELS = [
    judged(0.1, "good"),
    judged(0.45, "good"),
    judged(0.55, "bad"),
    judged(0.75, "grossly bad", method="nothing"),
    judged(None, "grossly bad", method="overshoot", group="saboteur"),
    judged(0.0, "good", method="retraining", group="reference"),
]


def test_models_are_counted_by_what_they_deserve():
    found = Errors.of(MODELS, AcceptanceLimits(excess_divergence=0.6))
    assert found == Errors(
        cells=1,
        good=Counted(3, 3),
        bad=Counted(1, 1),
        grossly_bad=Counted(0, 2),
        nothing=Counted(0, 1),
        sabotaged=Counted(0, 1),
        retrained=Counted(1, 1),
    )
    assert found.loss == pytest.approx(0.5)
    # One of three good ones refused; nothing accepted that should not be.
    assert Errors.of(MODELS, AcceptanceLimits(excess_divergence=0.3)).loss == pytest.approx(1 / 3)


def test_what_is_not_finite_is_refused():
    assert Errors.of([judged(None, "good")], AcceptanceLimits()).good == Counted(0, 1)


def test_the_limit_that_separates_good_from_bad_is_found():
    assert fitted(MODELS).excess_divergence == 0.5
    assert Errors.of(MODELS, fitted(MODELS)).loss == 0.0


def test_of_limits_that_do_equally_well_the_one_in_the_middle_is_taken():
    """Nothing tells the ranks' limits apart: what lies at their median is taken."""
    _, values = CANDIDATES["excess_rank"]
    assert fitted(MODELS).excess_rank in values[len(values) // 2 - 1 : len(values) // 2 + 1]
    assert fitted(MODELS).drift == AcceptanceLimits().drift


def test_the_least_loss_is_found_among_all_limits():
    """Every combination, tried one by one with the gate itself."""
    models = [*MODELS, judged(0.3, "bad"), judged(0.2, "grossly bad", group="saboteur")]
    tried = [AcceptanceLimits(excess_divergence=value) for value in CANDIDATES["excess_divergence"][1]]
    assert Errors.of(models, fitted(models)).loss == min(Errors.of(models, one).loss for one in tried)


def test_a_cell_is_judged_by_limits_that_it_had_no_part_in():
    other = [judged(0.2, "good", kind="cluster"), judged(0.3, "bad", kind="cluster")]
    found = {place: (limits.excess_divergence, errors) for place, limits, errors in leave_one_out([*MODELS, *other])}
    limit, errors = found["images-cnn", "cluster"]
    assert limit == fitted(MODELS).excess_divergence
    assert errors.bad == Counted(1, 1)
    limit, errors = found["images-cnn", "random"]
    assert limit == fitted(other).excess_divergence < 0.45
    assert errors.good == Counted(2, 3)


def test_errors_add_up():
    once = Errors.of(MODELS, AcceptanceLimits())
    twice = added([once, once])
    assert (twice.cells, twice.models) == (2, 2 * once.models)
    assert twice.good == Counted(2 * once.good.accepted, 2 * once.good.models)


def test_the_problem_of_the_fit_is_not_what_it_is_tried_on():
    found = rates([*MODELS, dataclasses.replace(judged(0.1, "good"), problem="images-resnet")])
    assert isinstance(found["on_fitted_cells"], dict)
    assert isinstance(found["on_other_cells"], dict)
    assert found["on_fitted_cells"]["good"]["models"] == 3
    assert found["on_other_cells"]["good"] == {"accepted": 1, "models": 1}
