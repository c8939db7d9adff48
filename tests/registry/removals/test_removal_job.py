"""What names a model, and what names an outcome."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from oubli.components.gate.limits import GateLimits
from oubli.registry.removals.removal_job import (
    Curvature,
    Order,
    Privacy,
    RemovalJob,
    RemovalOutcome,
    Selection,
    SnapshotUse,
    Status,
    UnlearnConfig,
    outcome_digest,
)
from oubli.registry.removals.removal_set import UnknownIds

# For every field of the configuration, a value that is not its default.
OTHER: dict[str, Any] = {
    "selection": Selection.FULL,
    "block_size": 100,
    "perturbations": 999,
    "perturbation_sigma": 0.2,
    "token_replacements": 2,
    "curvature": Curvature.KFAC,
    "curvature_samples": 500,
    "order": Order.ONE_AT_A_TIME,
    "use_snapshot": SnapshotUse.NEVER,
    "privacy": Privacy(epsilon=1.0, delta=1e-5),
    "steps": 2,
    "damping": 0.0,
    "max_test_accuracy_drop": 0.02,
    "max_test_loss_rise": 0.06,
    "max_gradient_ratio": 2.0,
    "max_gradient_rise": 0.7,
    "max_convex_gradient_left": 0.1,
    "max_class_share": 0.5,
    "max_membership_left": 0.1,
    "compare_with_retraining": True,
    "unknown_ids": UnknownIds.REPORT,
    "seed": 1,
    "alias": "candidate",
}


def test_every_field_is_tried() -> None:
    assert set(OTHER) == set(UnlearnConfig.model_fields)
    assert all(OTHER[name] != field.default for name, field in UnlearnConfig.model_fields.items())


@pytest.mark.parametrize("name", UnlearnConfig.model_fields)
def test_every_field_but_the_alias_is_part_of_the_outcome(name: str) -> None:
    changed = UnlearnConfig.model_validate({name: OTHER[name]})
    assert getattr(changed, name) == OTHER[name]
    same = changed.digest() == UnlearnConfig().digest()
    assert same == (name == "alias")


def test_a_digest_does_not_depend_on_how_the_value_was_given() -> None:
    written = UnlearnConfig.model_validate_json('{"seed": 3, "selection": "full", "damping": 1}')
    assert written.digest() == UnlearnConfig(damping=1.0, selection=Selection.FULL, seed=3).digest()


IDENTITY: dict[str, Any] = {
    "model": "digits",
    "parent_version": "1",
    "weights_sha256": "ab" * 32,
    "record_sha256": "ef" * 32,
    "removal_digest": "cd" * 32,
    "config": UnlearnConfig(),
}


def test_an_outcome_has_a_name_of_128_bits() -> None:
    name = outcome_digest(**IDENTITY)
    assert name == outcome_digest(**IDENTITY)
    assert len(name) == 32
    assert set(name) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", "wine"),
        ("parent_version", "2"),
        ("weights_sha256", "00" * 32),
        ("record_sha256", "00" * 32),
        ("removal_digest", "00" * 32),
        ("config", UnlearnConfig(seed=1)),
    ],
)
def test_each_part_of_its_identity_changes_the_name(part: str, value: object) -> None:
    assert outcome_digest(**IDENTITY | {part: value}) != outcome_digest(**IDENTITY)
    assert {"model", "parent_version", "weights_sha256", "record_sha256", "removal_digest", "config"} == set(IDENTITY)


@pytest.mark.parametrize("root", ["s3://bucket/prefix", "file:///data/a%20store", "/data/store"])
def test_a_job_survives_json_and_finds_its_work_area(root: str) -> None:
    job = RemovalJob(
        outcome="0123",
        store_root=root,
        model="digits",
        parent_version="1",
        removal_digest="cd" * 32,
        config=UnlearnConfig(steps=3),
    )
    assert RemovalJob.model_validate_json(job.model_dump_json()) == job
    assert job.area.root == f"{root}/work/0123"


@pytest.mark.parametrize(
    "wrong",
    [
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
        {"max_gradient_ratio": 0},
        {"max_gradient_rise": -1},
        {"max_convex_gradient_left": 2},
        {"max_class_share": -0.1},
        {"privacy": {"epsilon": 1, "delta": 0}},
        {"privacy": {"epsilon": 1}},
        {"perturbation_sigma": 0},
        {"steps": 0},
        {"steps": 11},
        {"damping": -1},
        {"max_test_accuracy_drop": 1.1},
        {"max_test_loss_rise": -0.1},
        {"seed": -1},
        {"alias": ""},
        {"sead": 1},
    ],
    ids=str,
)
def test_wrong_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        UnlearnConfig.model_validate(wrong)


def test_the_gate_is_told_every_limit() -> None:
    assert UnlearnConfig().limits == GateLimits()
    config = UnlearnConfig.model_validate({name: value for name, value in OTHER.items() if name.startswith("max_")})
    changed = {name for name in vars(GateLimits()) if getattr(config.limits, name) != getattr(GateLimits(), name)}
    # The floor is rounding, and nobody's choice.
    assert changed == set(vars(GateLimits())) - {"gradient_floor"}


def test_every_field_explains_itself_in_the_form() -> None:
    for name, field in UnlearnConfig.model_json_schema()["properties"].items():
        assert field.get("description"), name


@pytest.mark.parametrize(
    ("status", "version", "words"),
    [
        (Status.REGISTERED, "2", "digits: version 2 registered"),
        (Status.ALREADY_DONE, "2", "digits: already done, by version 2"),
        (Status.NOTHING_TO_REMOVE, "1", "digits: nothing to remove"),
        (Status.REFUSED, None, "digits: refused, retrain"),
    ],
)
def test_headlines(status: Status, version: str | None, words: str) -> None:
    outcome = RemovalOutcome(
        status=status,
        outcome="0123",
        model="digits",
        parent_version="1",
        version=version,
        run_id=None,
        removed=0,
        already_removed=0,
        unknown=0,
    )
    assert outcome.headline.startswith(words)
    assert RemovalOutcome.model_validate_json(outcome.model_dump_json()) == outcome
