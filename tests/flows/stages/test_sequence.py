"""The order of the stages: said once, and shown as it is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import blobs

from oubli.flows.job.facts import Stage
from oubli.flows.job.run_record import Findings
from oubli.flows.stages.sequence import SEQUENCE, computing_stages
from oubli.flows.unlearn import _COMPUTING
from oubli.registry.removals.unlearn_config import UnlearnConfig

README = Path(__file__).parents[3] / "flows" / "README.md"


def test_every_stage_has_one_place() -> None:
    assert sorted(SEQUENCE) == sorted(Stage)
    assert (SEQUENCE[0], SEQUENCE[-1]) == (Stage.FETCH, Stage.REGISTER)


def test_the_evidence_is_what_all_stages_before_the_last_found_out() -> None:
    assert [field.name for field in fields(Findings)] == [stage.value for stage in SEQUENCE[:-1]]


def test_retraining_is_run_on_request() -> None:
    asked = computing_stages(UnlearnConfig(compare_with_retraining=True))
    assert asked == SEQUENCE[1:-1]
    assert computing_stages(UnlearnConfig()) == tuple(stage for stage in asked if stage is not Stage.RETRAIN)


def test_the_flow_and_the_tests_can_run_each_of_them() -> None:
    asked = computing_stages(UnlearnConfig(compare_with_retraining=True))
    assert set(_COMPUTING) == set(blobs.COMPUTING) == set(asked)


def test_the_readme_lists_them_in_their_order() -> None:
    folders = re.findall(r"^ {4}\S*(?: key>)?.*?(\w+)/ {2,}", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert folders == [stage.value for stage in SEQUENCE]
