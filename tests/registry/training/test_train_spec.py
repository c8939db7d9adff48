"""Training specifications, and the records that follow from them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from records import training_record

from oubli.components.model.losses import Loss
from oubli.registry.training.train_spec import TrainSpec
from oubli.registry.training.training_record import (
    DatasetReference,
    FactoryReference,
    Precision,
    Sensitivity,
    SplitRule,
    TrainingRecord,
    VectorDecoder,
)

SHA = "ab" * 32


def valid() -> dict[str, Any]:
    """As a TOML file gives it: plain values."""
    return {
        "model": "digits",
        "dataset_uri": "s3://bucket/digits.parquet",
        "decoder": {"kind": "vector", "columns": ["values"]},
        "loss": "cross_entropy",
        "l2": 0.001,
        "factory": {"target": "my.models:net", "kwargs": {"width": 3}},
        "retrain": {"target": "my.training:fit"},
    }


def test_defaults() -> None:
    spec = TrainSpec.model_validate(valid())
    assert (spec.id_column, spec.label_column, spec.subject_column) == ("sample_id", "label", None)
    assert (spec.seed, spec.convex, spec.dtype, spec.alias) == (0, False, Precision.FLOAT32, "champion")


def test_the_record_says_all_that_the_specification_says() -> None:
    spec = TrainSpec.model_validate(
        valid()
        | {
            "id_column": "id",
            "label_column": "grower",
            "subject_column": "cellar",
            "split": {"column": "part", "train": "a", "test": "b"},
            "seed": 5,
            "convex": True,
            "dtype": "float64",
            "alias": "candidate",
            "trained": ["head"],
            "sensitivity": {"lipschitz": 2.0, "hessian_lipschitz": 0.5},
        }
    )
    assert spec.record(SHA, n=142) == training_record(
        dataset=DatasetReference(
            uri="s3://bucket/digits.parquet",
            sha256=SHA,
            id_column="id",
            label_column="grower",
            subject_column="cellar",
            split=SplitRule(column="part", train="a", test="b"),
        ),
        decoder=VectorDecoder(columns=("values",)),
        loss=Loss.CROSS_ENTROPY,
        l2=0.001,
        n=142,
        seed=5,
        factory=FactoryReference(target="my.models:net", kwargs={"width": 3}),
        retrain=FactoryReference(target="my.training:fit"),
        convex=True,
        dtype=Precision.FLOAT64,
        trained=("head",),
        sensitivity=Sensitivity(lipschitz=2.0, hessian_lipschitz=0.5),
    )


def test_no_field_of_the_record_is_forgotten() -> None:
    # A field added to the record must be settable where models are trained, or be known not to be.
    told = set(TrainSpec.model_fields) | {"dataset", "n", "schema_version"}
    assert set(TrainingRecord.model_fields) <= told
    assert set(DatasetReference.model_fields) <= set(TrainSpec.model_fields) | {"uri", "sha256"}


def test_the_record_survives_json() -> None:
    record = TrainSpec.model_validate(valid()).record(SHA, n=3)
    assert TrainingRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": ""}, "model"),
        ({"model": "a/b"}, "model"),
        ({"model": "a@b"}, "model"),
        ({"model": "a:b"}, "model"),
        ({"model": "it's"}, "model"),
        ({"l2": -1}, "l2"),
        ({"seed": -1}, "seed"),
        ({"alias": ""}, "alias"),
        ({"loss": "focal"}, "loss"),
        ({"dtype": "float16"}, "dtype"),
        ({"decoder": {"kind": "audio"}}, "decoder"),
        ({"factory": {"target": "os.system"}}, "factory"),
        ({"trained": []}, "trained"),
        ({"sead": 1}, "sead"),
    ],
    ids=str,
)
def test_wrong_fields_are_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainSpec.model_validate(valid() | changes)
    assert {entry["loc"][0] for entry in caught.value.errors()} == {field}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_infinite_l2_is_refused(value: float) -> None:
    # Here, and not only in the record, which is made when the training is done.
    with pytest.raises(ValidationError, match="l2"):
        TrainSpec.model_validate(valid() | {"l2": value})


@pytest.mark.parametrize("name", ["model", "dataset_uri", "decoder", "loss", "l2", "factory", "retrain"])
def test_what_has_no_default_is_needed(name: str) -> None:
    values = valid()
    del values[name]
    with pytest.raises(ValidationError, match=rf"{name}\n  Field required"):
        TrainSpec.model_validate(values)
