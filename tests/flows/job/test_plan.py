"""The plan: costs counted by hand, and nothing run."""

from __future__ import annotations

from io import StringIO

import memorised
import pytest
from rich.console import Console

from oubli.cli.tables import print_plan
from oubli.components.removal.descent import Optimiser
from oubli.components.removal.matching import MatchingPlan
from oubli.components.removal.surrogate import TrainingSettings
from oubli.flows.job.plan import Sizes, passes
from oubli.flows.stages.planning import plan_removal
from oubli.flows.training.train import train
from oubli.registry.removals.unlearn_config import UnlearnConfig, Way
from oubli.registry.settings import Settings
from oubli.registry.training.how_trained import HowTrained, SettingsSource

HOW = HowTrained(TrainingSettings(Optimiser.ADAM, 0.01, 10, 30), SettingsSource.RECIPE)
SIZES = Sizes(n=1000, r=990, m=10, k=100, t=50, row_bytes=8, parameter_bytes=400)
CONFIG = UnlearnConfig(surrogate_epochs=2, matching_steps=25, perturbations=100)
# Gradients; 10 samples with 100 copies each, at 4 passes a copy; both models measured.
EITHER = 3 * 10 + 4000 + 2 * (4 * 990 + 50 + 10)


def test_what_matching_costs() -> None:
    plan = MatchingPlan()
    surrogate, tables = 3 * 2 * 990, 2 * (990 + 100) + 10
    steps = 3 * 25 * (10 + plan.uniform_batch + plan.hard_batch)
    alone = passes(Way.MATCHING, CONFIG, HOW, SIZES, convex=False, audit=False)
    assert alone == EITHER + surrogate + tables + steps
    judged = passes(Way.MATCHING, CONFIG, HOW, SIZES, convex=False, audit=True)
    assert judged == alone + 2 * (surrogate + 10 + 100) + 100


def test_what_the_others_cost() -> None:
    assert passes(Way.NEWTON, CONFIG, HOW, SIZES, convex=False, audit=False) == EITHER + 6 * 990
    assert passes(Way.RETRAIN, CONFIG, HOW, SIZES, convex=False, audit=True) == 3 * 30 * 990 + 990 + 50
    # Iterations until a tolerance is met cannot be counted before.
    assert passes(Way.NEWTON, CONFIG, HOW, SIZES, convex=True, audit=False) is None


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["local"], indirect=True, scope="module")
def test_a_plan_of_a_registered_model(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUBLI_FACTORY_PREFIXES", memorised.PREFIXES)
    allowing = Settings()
    train(allowing, memorised.spec(allowing, "planned"))
    plan = plan_removal(allowing, "planned", [memorised.removals(allowing, range(10))], UnlearnConfig())
    assert (plan.parent_version, plan.removed, plan.tried) == ("1", 10, (Way.MATCHING, Way.NEWTON))
    matching, _newton = plan.ways
    assert plan.trained_seconds is not None
    assert matching.passes is not None
    share = matching.passes / (3 * 100 * memorised.TRAIN)
    assert matching.seconds == pytest.approx(plan.trained_seconds * share)
    page = StringIO()
    print_plan(Console(file=page, width=200), plan)
    assert "planned: 10 samples to remove from version 1" in page.getvalue()
    assert "matching" in page.getvalue()
    # Nothing was done: no work area.
    assert not (allowing.home / "store" / "work").exists()
