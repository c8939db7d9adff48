"""Training records for tests."""

from __future__ import annotations

from typing import Any

from oubli.components.model.losses import Loss
from oubli.registry.training.training_record import DatasetReference, FactoryReference, TrainingRecord, VectorDecoder

SHA = "ab" * 32


def training_record(**changes: Any) -> TrainingRecord:
    """The record of a convex model on vectors, with other values in the fields that `changes` names."""
    fields: dict[str, Any] = {
        "dataset": DatasetReference(uri="/data/blobs.parquet", sha256=SHA),
        "decoder": VectorDecoder(columns=("values",)),
        "loss": Loss.CROSS_ENTROPY,
        "l2": 1e-3,
        "n": 200,
        "seed": 7,
        "factory": FactoryReference(target="oubli.components.reference.models:logistic_regression"),
        "retrain": FactoryReference(target="oubli.components.reference.training:fit_convex"),
        "convex": True,
    }
    return TrainingRecord(**fields | changes)
