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
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.unlearn_config import UnlearnConfig, Way

README = Path(__file__).parents[3] / "flows" / "README.md"


def test_every_stage_has_one_place() -> None:
    assert sorted(SEQUENCE) == sorted(Stage)
    assert (SEQUENCE[0], SEQUENCE[-1]) == (Stage.FETCH, Stage.REGISTER)


def test_the_evidence_is_what_all_stages_before_the_last_found_out() -> None:
    assert [field.name for field in fields(Findings)] == [stage.value for stage in SEQUENCE[:-1]]


def job(way: Way, *, audited: bool = False, compared: bool = False) -> RemovalJob:
    config = UnlearnConfig(method=way, compare_with_retraining=compared)
    return RemovalJob(
        key="k", store_root="/s", model="m", parent_version="1", removal_digest="d", config=config, audited=audited
    )


def test_each_removal_runs_what_it_needs() -> None:
    always = {Stage.GRADIENTS, Stage.BLANKET, Stage.UPDATE, Stage.VALIDATE}
    assert set(computing_stages(job(Way.NEWTON))) == always
    assert set(computing_stages(job(Way.MATCHING))) == always | {Stage.SURROGATE}
    assert set(computing_stages(job(Way.NEWTON, audited=True))) == always | {Stage.AUDIT}
    # A retrained model judges better than auditors.
    assert set(computing_stages(job(Way.NEWTON, audited=True, compared=True))) == always | {Stage.RETRAIN}


def test_they_run_in_their_order() -> None:
    found = computing_stages(job(Way.MATCHING, audited=True))
    assert found == tuple(stage for stage in SEQUENCE if stage in found)


def test_the_flow_and_the_tests_can_run_each_of_them() -> None:
    assert set(_COMPUTING) == set(blobs.COMPUTING) == set(SEQUENCE[1:-1])


def test_the_readme_lists_them_in_their_order() -> None:
    folders = re.findall(r"^ {4}\S*(?: key>)?.*?(\w+)/ {2,}", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert folders == [stage.value for stage in SEQUENCE]
