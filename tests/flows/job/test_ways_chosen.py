"""Which ways a model admits, and in which order they are tried."""

from __future__ import annotations

from typing import Any

import pytest
from records import training_record

from oubli.components.errors import ConfigurationError
from oubli.flows.job.ways import audited, ways, why
from oubli.registry.removals.unlearn_config import UnlearnConfig, Way
from oubli.registry.settings import Settings
from oubli.registry.training.recipe import Recipe

CUSTOM = "odd_losses:knows_nothing"
BOTH = (Way.MATCHING, Way.NEWTON)


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUBLI_FACTORY_PREFIXES", "oubli.components.reference,odd_losses")


def recipe(**changes: Any) -> Recipe:
    return Recipe.of(training_record(**{"convex": False, **changes}), Settings())


@pytest.mark.parametrize(
    ("record", "config", "tried"),
    [
        ({}, {}, BOTH),
        ({"loss": "mse"}, {}, BOTH),
        ({"convex": True}, {}, (Way.NEWTON,)),
        ({"loss": CUSTOM}, {}, (Way.NEWTON,)),
        # Whoever names a setting of the Newton step means that step.
        ({}, {"curvature": "ggn"}, (Way.NEWTON,)),
        ({}, {"damping": 0.1}, (Way.NEWTON,)),
        ({}, {"privacy": {"epsilon": 1, "delta": 1e-5}}, (Way.NEWTON,)),
        ({}, {"selection": "l_foci"}, BOTH),
        ({}, {"method": "matching"}, (Way.MATCHING,)),
        ({}, {"method": "retrain"}, (Way.RETRAIN,)),
        ({}, {"ladder": ["newton", "retrain"]}, (Way.NEWTON, Way.RETRAIN)),
        # What the model does not admit is passed over.
        ({"loss": CUSTOM}, {"ladder": ["matching", "newton"]}, (Way.NEWTON,)),
    ],
    ids=str,
)
def test_what_is_tried(record: dict[str, Any], config: dict[str, Any], tried: tuple[Way, ...]) -> None:
    assert ways(UnlearnConfig.model_validate(config), recipe(**record)) == tried


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"loss": CUSTOM}, "have no calibration"),
        ({"convex": True}, "objective is convex"),
        (
            {"training": {"optimiser": "adam", "peak_rate": 0.1, "batch_size": 8, "epochs": 1}},
            "a surrogate would be a retraining",
        ),
    ],
    ids=["loss", "convex", "one epoch"],
)
def test_what_cannot_be_matched_is_said_before_the_work(record: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        ways(UnlearnConfig(method=Way.MATCHING), recipe(**record))
    assert "'newton' or 'retrain'" in caught.value.remedy


@pytest.mark.parametrize(
    ("record", "judged"),
    [
        ({}, True),
        ({"loss": "bce_with_logits"}, True),
        ({"loss": "mse"}, False),
        ({"loss": CUSTOM}, False),
        ({"convex": True}, False),
    ],
    ids=str,
)
def test_who_is_judged_by_auditors(record: dict[str, Any], judged: bool) -> None:
    assert audited(recipe(**record)) is judged


def test_why() -> None:
    assert "network" in why(Way.MATCHING, UnlearnConfig(), recipe())
    assert "refused" in why(Way.NEWTON, UnlearnConfig(), recipe())
    assert "convex" in why(Way.NEWTON, UnlearnConfig(), recipe(convex=True))
    assert "calibration" in why(Way.NEWTON, UnlearnConfig(), recipe(loss=CUSTOM))
    assert why(Way.MATCHING, UnlearnConfig(method=Way.MATCHING), recipe()) == "asked for"
