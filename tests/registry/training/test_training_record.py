"""The training record: what it accepts, refuses, and says about it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from records import training_record

from oubli.components.model.losses import Loss
from oubli.registry.errors import TrainingRecordError
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.training.training_record import (
    FactoryReference,
    ImageDecoder,
    LabelKind,
    Split,
    TrainingRecord,
    VectorDecoder,
)

DIGEST = "0123456789abcdef" * 4


def valid() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "dataset": {"uri": "s3://bucket/digits.parquet", "sha256": DIGEST, "subject_column": "writer"},
        "decoder": {"kind": "image", "height": 8, "width": 8, "channels": 1, "scale": 0.0625},
        "loss": "cross_entropy",
        "l2": 0.001,
        "n": 1437,
        "seed": 0,
        "factory": {"target": "oubli.components.reference.models:logistic", "kwargs": {"classes": 10}},
        "retrain": {"target": "oubli.components.reference.training:fit"},
        "convex": True,
    }


def read(**changes: Any) -> TrainingRecord:
    return TrainingRecord.from_json(json.dumps(valid() | changes))


def test_a_record_comes_back_as_it_was_written() -> None:
    record = training_record(
        decoder=ImageDecoder(height=2, width=3, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5,)),
        loss=Loss.MSE,
        factory=FactoryReference(target="a.b:c", kwargs={"sizes": [1, 2], "name": None}),
        convex=False,
    )
    assert TrainingRecord.from_json(record.to_json()) == record
    assert read() == TrainingRecord.from_json(read().to_json().encode())
    assert json.loads(record.to_json())["schema_version"] == 1


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])), min_size=1),
    st.none() | st.lists(finite).map(tuple),
    st.floats(min_value=0, allow_infinity=False),
    st.sampled_from([*Loss, "pkg.mod:my_loss"]),
)
def test_numbers_and_names_survive_json(
    columns: list[str], mean: tuple[float, ...] | None, l2: float, loss: str
) -> None:
    decoder = VectorDecoder(columns=tuple(columns), mean=mean)
    record = read(l2=l2, loss=loss, decoder=decoder.model_dump(mode="json"))
    assert record.decoder == decoder
    assert record.l2 == l2
    assert TrainingRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("cross_entropy", LabelKind.CLASS),
        ("bce_with_logits", LabelKind.FLOAT),
        ("mse", LabelKind.FLOAT),
        ("my.losses:focal", LabelKind.AS_STORED),
    ],
)
def test_the_loss_says_what_labels_are(loss: str, kind: LabelKind) -> None:
    assert read(loss=loss).label_kind is kind


def test_the_split_rule_gives_the_stored_values() -> None:
    rule = read(dataset=valid()["dataset"] | {"split": {"train": "a", "test": "b"}}).dataset.split
    assert (rule.value(Split.TRAIN), rule.value(Split.TEST)) == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l2": -1}, r"l2: expected greater than or equal to 0, found -1"),
        ({"n": 0}, r"n: expected greater than 0, found 0"),
        ({"convex": "perhaps"}, r"convex: expected a valid boolean.*found 'perhaps'"),
        ({"loss": "focal"}, r"loss.*found 'focal'"),
        ({"note": "x"}, r"note: no such field in schema 1"),
        ({"dataset": {"uri": "/d", "sha256": "ABC"}}, r"dataset\.sha256: expected .*found 'ABC'"),
        ({"dataset": {"sha256": DIGEST}}, r"dataset\.uri: expected a value, found none"),
        (
            {"dataset": {"uri": "/d", "sha256": DIGEST, "split": {"train": "x", "test": "x"}}},
            r"dataset\.split: expected the train and test values must differ",
        ),
        (
            {"dataset": {"uri": "/d", "sha256": DIGEST, "split": {"validation": "test"}}},
            r"dataset\.split: .* as must that of validation",
        ),
        ({"training": {"optimiser": "lion"}}, r"training\.optimiser: expected 'sgd' or 'adam'.*found 'lion'"),
        ({"decoder": {"kind": "audio"}}, r"decoder: .*'image', 'vector', 'tokens'"),
        (
            {"decoder": {"kind": "image", "height": 1, "width": 1, "channels": 3, "mean": [0, 0]}},
            r"decoder\.image: .*mean has 2 values for 3 channels",
        ),
        ({"decoder": {"kind": "vector", "columns": []}}, r"decoder\.vector\.columns: "),
        ({"decoder": {"kind": "vector", "columns": ["a"], "std": [0]}}, r"decoder\.vector\.std\.0: .*greater than 0"),
        ({"factory": {"target": "os.system"}}, r"factory\.target: .*found 'os\.system'"),
        ({"schema_version": 0}, r"schema_version: expected 1, found 0"),
        ({"trained": []}, r"trained: "),
        ({"sensitivity": {"lipschitz": 0, "hessian_lipschitz": 1}}, r"sensitivity\.lipschitz: .*greater than 0"),
        ({"decoder": {"kind": "tokens", "length": 4, "vocabulary": 2, "padding": 2}}, r"vocabulary of 2"),
        ({"l2": -1, "n": 0}, r"2 wrong fields: l2.*; n"),
    ],
)
def test_wrong_fields_are_listed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingRecordError, match=message) as caught:
        read(**changes)
    assert "pydantic" not in str(caught.value)


def test_long_values_are_cut() -> None:
    with pytest.raises(TrainingRecordError) as caught:
        read(n="x" * 10_000)
    assert len(str(caught.value)) < 300


def test_a_newer_version_is_told_apart_from_a_wrong_one() -> None:
    # Fields that this version does not know must not be what it complains about.
    with pytest.raises(TrainingRecordError, match=r"newer version of Oubli: schema 2.*up to 1.*Upgrade") as caught:
        read(schema_version=2, unheard_of=True)
    assert "unheard_of" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", b"\xff\xfe", "[1]", "null"])
def test_what_is_no_record_is_refused(text: str | bytes) -> None:
    with pytest.raises(TrainingRecordError, match=r"is not JSON|the whole record: expected"):
        TrainingRecord.from_json(text)


def test_records_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read().l2 = 1  # type: ignore[misc]


def test_every_field_explains_itself() -> None:
    schema = TrainingRecord.model_json_schema()
    for name, model in {"TrainingRecord": schema, **schema["$defs"]}.items():
        for field, described in model.get("properties", {}).items():
            assert described.get("description"), f"{name}.{field}"


def test_a_record_that_says_nothing_new_has_the_bytes_of_old() -> None:
    # Its digest names it, and names what was made from it.
    stored = json.loads(read().to_json())
    assert not {"trained", "sensitivity", "training"} & set(stored)
    assert set(stored["dataset"]["split"]) == {"column", "train", "test"}


@pytest.mark.parametrize(
    ("changes", "digest"),
    [
        ({}, "4a23b9508f09a92ecdb746794e93e3d5cf898b644126b28b38d7d0299f58b720"),
        (
            {"trained": ["head"], "sensitivity": {"lipschitz": 2.0, "hessian_lipschitz": 0.5}},
            "31ac59376dc07132306596ea101e4b9edbd36ec5fcad805c8af3f5daa1005a5d",
        ),
    ],
    ids=["plain", "with scope and sensitivity"],
)
def test_the_stored_json_does_not_change(changes: dict[str, Any], digest: str) -> None:
    # Records are stored under this digest, and removals are named by it.
    assert bytes_digest(read(**changes).to_json().encode()) == digest


def test_training_and_validation_survive_json() -> None:
    dataset = valid()["dataset"] | {"split": {"validation": "dev"}}
    record = read(training={"optimiser": "sgd", "peak_rate": 0.1, "batch_size": 8, "epochs": 3}, dataset=dataset)
    assert record.training is not None
    assert (record.training.optimiser, record.training.momentum) == ("sgd", 0.9)
    assert record.dataset.split.value(Split.VALIDATION) == "dev"
    assert TrainingRecord.from_json(record.to_json()) == record


def test_scope_and_sensitivity_survive_json() -> None:
    record = read(trained=["head", "norm.weight"], sensitivity={"lipschitz": 2.0, "hessian_lipschitz": 0.0})
    assert record.trained == ("head", "norm.weight")
    assert record.sensitivity is not None
    assert record.sensitivity.lipschitz == 2.0
    assert TrainingRecord.from_json(record.to_json()) == record
