from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from oubli.components.errors import ConfigurationError
from oubli.components.gate.limits import GateLimits


@pytest.mark.parametrize("name", [one.name for one in fields(GateLimits)])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_limits_must_be_usable(name, value):
    with pytest.raises(ConfigurationError, match=f"Gate limit {name}"):
        GateLimits(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("accuracy_drop", 1.1), ("class_gone", 1.1), ("distance", 0.0)])
def test_limits_stay_within_their_bounds(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"Gate limit {name}"):
        GateLimits(**{name: value})


class Nesting(BaseModel):
    """A configuration as the registry's."""

    limits: GateLimits = GateLimits()


def test_pydantic_reads_the_descriptions_and_bounds() -> None:
    described = Nesting.model_json_schema()["$defs"]["GateLimits"]["properties"]
    for limit in fields(GateLimits):
        assert described[limit.name]["description"] == limit.metadata["description"]
        assert described[limit.name]["default"] == limit.default
    assert (described["membership_off"]["minimum"], described["membership_off"]["maximum"]) == (0, 1)
    assert described["distance"]["exclusiveMinimum"] == 0


@pytest.mark.parametrize("limits", [{"class_gone": 1.1}, {"distance": 0}, {"loss_rise": math.nan}])
def test_pydantic_enforces_the_bounds(limits: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(limits))):
        Nesting(limits=limits)


def test_limits_survive_json() -> None:
    nesting = Nesting(limits=GateLimits(class_gone=0.9))
    assert Nesting.model_validate_json(nesting.model_dump_json()) == nesting
