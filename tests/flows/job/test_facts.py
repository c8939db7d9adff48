"""Facts: what a stage hands on comes back from JSON as the kind that it was."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from oubli.components.curvature.kinds import CurvatureKind
from oubli.components.curvature.snapshots.snapshot import SnapshotForm
from oubli.components.removal.update import StepReport
from oubli.components.solvers import SolverName
from oubli.flows.job.facts import UPDATE_FACTS, EmptyBlock, Indefinite, Made, Unsolved, UpdateFacts

STEP = StepReport(
    gradient_before=1.0,
    gradient_after=None,
    damping=0.0,
    tries=1,
    solver=SolverName.CHOLESKY,
    iterations=1,
    residual=math.inf,
    step_norm=0.1,
    seconds=0.2,
)


def made(curvature: CurvatureKind | SnapshotForm, *steps: StepReport) -> Made:
    return Made(
        seconds=1.0,
        curvature=curvature,
        damping="none (convex)",
        steps=steps,
        model_gradient=0.1,
        removal_gradient=0.2,
        noise_sigma=0.0,
        gradient_without_noise=None,
    )


@pytest.mark.parametrize(
    "facts",
    [
        made(CurvatureKind.GGN, STEP),
        made(SnapshotForm.DENSE, STEP, STEP),
        Indefinite(seconds=1.0, curvature=CurvatureKind.HESSIAN, damping="0.1, as configured", detail="Why."),
        Unsolved(seconds=1.0, curvature=CurvatureKind.KFAC, damping="", snapshot_unused="A cut.", detail="Why."),
        EmptyBlock(candidate_slices=27),
    ],
    ids=lambda facts: facts.kind,
)
def test_an_update_comes_back_as_it_was(facts: UpdateFacts) -> None:
    assert UPDATE_FACTS.validate_python(UPDATE_FACTS.dump_python(facts, mode="json")) == facts


def test_an_update_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="kind"):
        UPDATE_FACTS.validate_python({"kind": "guessed", "seconds": 1.0})


def test_where_the_curvature_came_from_in_words() -> None:
    assert made(CurvatureKind.EKFAC).curvature_words == "ekfac"
    assert made(SnapshotForm.LOW_RANK).curvature_words == "snapshot (low_rank)"
    assert EmptyBlock(candidate_slices=1).curvature_words == "none"


def test_an_update_is_undamped_where_no_step_was_damped() -> None:
    damped = StepReport(**{**vars(STEP), "damping": 0.1})
    assert made(CurvatureKind.GGN, STEP, STEP).undamped
    assert not made(CurvatureKind.GGN, STEP, damped).undamped
