"""Which settings there are, which contradict each other, and that all but the alias identify a removal."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from pydantic import ValidationError

from oubli.components.blocks.choosing import BlockChoice
from oubli.components.curvature.kinds import CurvatureKind
from oubli.components.gate.limits import GateLimits
from oubli.registry.removals.removal_set import UnknownIds
from oubli.registry.removals.unlearn_config import (
    NothingToForget,
    Order,
    Privacy,
    SnapshotUse,
    UnlearnConfig,
    Way,
    WhenRefused,
)

# For every field of the configuration, a value that is not its default.
OTHER: dict[str, Any] = {
    "method": Way.NEWTON,
    "ladder": (Way.NEWTON,),
    "when_refused": WhenRefused.RETRAIN,
    "nothing_to_forget": NothingToForget.UPDATE,
    "blanket_budget": 0.1,
    "surrogate_epochs": 3,
    "matching_steps": 50,
    "selection": BlockChoice.FULL,
    "block_size": 100,
    "perturbations": 999,
    "perturbation_sigma": 0.2,
    "token_replacements": 2,
    "curvature": CurvatureKind.KFAC,
    "curvature_samples": 500,
    "order": Order.ONE_AT_A_TIME,
    "use_snapshot": SnapshotUse.NEVER,
    "privacy": Privacy(epsilon=1.0, delta=1e-5),
    "steps": 2,
    "damping": 0.0,
    "limits": GateLimits(accuracy_drop=0.02),
    "compare_with_retraining": True,
    "unknown_ids": UnknownIds.REPORT,
    "seed": 1,
    "alias": "candidate",
}


def test_every_field_is_tried() -> None:
    assert set(OTHER) == set(UnlearnConfig.model_fields)
    assert all(OTHER[name] != field.default for name, field in UnlearnConfig.model_fields.items())


@pytest.mark.parametrize("name", UnlearnConfig.model_fields)
def test_every_field_but_the_alias_is_part_of_the_identity(name: str) -> None:
    changed = UnlearnConfig.model_validate({name: OTHER[name]})
    assert getattr(changed, name) == OTHER[name]
    same = changed.digest() == UnlearnConfig().digest()
    assert same == (name == "alias")


def test_what_follows_a_refusal_is_no_part_of_one_removal() -> None:
    one = UnlearnConfig(ladder=(Way.MATCHING, Way.NEWTON), when_refused=WhenRefused.RETRAIN, seed=1)
    assert one.for_way(Way.NEWTON) == UnlearnConfig(method=Way.NEWTON, seed=1)


def test_noise_is_scaled_for_the_newton_step() -> None:
    with pytest.raises(ValidationError, match="leave matching out"):
        UnlearnConfig(method=Way.MATCHING, privacy=Privacy(epsilon=1.0, delta=1e-5))


def test_a_digest_does_not_depend_on_how_the_value_was_given() -> None:
    written = UnlearnConfig.model_validate_json('{"seed": 3, "selection": "full", "damping": 1}')
    assert written.digest() == UnlearnConfig(damping=1.0, selection=BlockChoice.FULL, seed=3).digest()


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "magic"},
        {"ladder": ["auto"]},
        {"method": "newton", "ladder": ["newton"]},
        {"ladder": ["newton", "newton"]},
        {"ladder": ["retrain", "newton"]},
        {"when_refused": "weep"},
        {"blanket_budget": 0},
        {"surrogate_epochs": 0},
        {"matching_steps": 0},
        {"selection": "best"},
        {"selection": "top_gradient"},
        {"block_size": 0},
        {"perturbations": 9},
        {"token_replacements": 0},
        {"curvature": "exact"},
        {"curvature_samples": 0},
        {"order": "backwards"},
        {"use_snapshot": "perhaps"},
        {"privacy": {"epsilon": 0, "delta": 0.1}},
        {"privacy": {"epsilon": 1, "delta": 0.1, "max_noise": 0}},
        {"privacy": {"epsilon": 1, "delta": 0}},
        {"privacy": {"epsilon": 1}},
        {"perturbation_sigma": 0},
        {"steps": 0},
        {"steps": 11},
        {"damping": -1},
        {"limits": {"acuracy_drop": 0.1}},
        {"limits": {"accuracy_drop": 1.1}},
        {"limits": {"loss_rise": -0.1}},
        {"limits": {"distance": 0}},
        {"limits": {"excess_divergence": -1}},
        {"limits": {"convex_gradient_fraction": 2}},
        {"limits": {"class_gone": 0}},
        {"limits": {"loss_rise": "much"}},
        {"nothing_to_forget": "perhaps"},
        {"seed": -1},
        {"alias": ""},
        {"sead": 1},
    ],
    ids=str,
)
def test_wrong_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        UnlearnConfig.model_validate(wrong)


@pytest.mark.parametrize("name", [field.name for field in fields(GateLimits)])
def test_every_limit_is_part_of_the_identity(name: str) -> None:
    changed = UnlearnConfig.model_validate({"limits": {name: 0.125}})
    assert changed.limits == replace(GateLimits(), **{name: 0.125})
    assert changed.digest() != UnlearnConfig().digest()


def test_every_field_explains_itself_in_the_form() -> None:
    schema = UnlearnConfig.model_json_schema()
    for part in (schema, schema["$defs"]["Privacy"], schema["$defs"]["GateLimits"]):
        for name, field in part["properties"].items():
            assert field.get("description"), name


def test_a_form_shows_every_choice_in_one_menu() -> None:
    shown = UnlearnConfig.model_json_schema()["properties"]
    assert shown["selection"]["enum"] == ["auto", *BlockChoice]
    assert shown["curvature"]["enum"] == ["auto", *CurvatureKind]


def test_a_wrong_choice_is_one_message() -> None:
    with pytest.raises(ValidationError) as caught:
        UnlearnConfig.model_validate({"selection": "best", "curvature": ["ggn"]})
    selection, curvature = caught.value.errors()
    assert (selection["loc"], curvature["loc"]) == (("selection",), ("curvature",))
    assert "one of auto, l_foci" in selection["msg"]
