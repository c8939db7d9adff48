"""A problem where there is something to forget: a wide network that learns the wrong labels of its first samples."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join
from oubli.registry.training.train_spec import TrainSpec
from oubli.registry.training.training_record import SplitRule
from oubli.registry.training.writing import write_training_data

FEATURES, TRAIN, VALIDATION, TEST, MISLABELLED = 10, 400, 300, 100, 20
PREFIXES = "oubli.components.reference,blob_network"
SPLIT = SplitRule(validation="validation")


def table() -> pa.Table:
    """Three overlapping classes; the first MISLABELLED training rows have another's label."""
    random, rows = np.random.default_rng(0), TRAIN + VALIDATION + TEST
    labels = random.integers(0, 3, rows)
    values = 1.5 * np.eye(FEATURES)[labels] + 0.7 * random.normal(size=(rows, FEATURES))
    labels[:MISLABELLED] = (labels[:MISLABELLED] + 1) % 3
    return pa.table(
        {
            "sample_id": [f"row-{number:04d}" for number in range(rows)],
            "values": pa.array(list(values.astype(np.float32))),
            "label": pa.array(labels, pa.int32()),
            "split": ["train"] * TRAIN + ["validation"] * VALIDATION + ["test"] * TEST,
        }
    )


def spec(settings: Settings, model: str) -> TrainSpec:
    """On the problem's data, which is written on the way."""
    uri = join(settings.store_root, "data", "memorised.parquet")
    if not store_for(uri).exists(uri):
        write_training_data(table(), uri, split=SPLIT)
    return TrainSpec.model_validate(
        {
            "model": model,
            "dataset_uri": uri,
            "split": SPLIT,
            "decoder": {"kind": "vector", "columns": ["values"]},
            "loss": "cross_entropy",
            "l2": 0.0,
            "factory": {"target": "blob_network:build_normalised", "kwargs": {"features": FEATURES, "width": 256}},
            "retrain": {
                "target": "oubli.components.reference.training:fit_minibatch",
                "kwargs": {"epochs": 100, "batch_size": 32, "learning_rate": 0.01},
            },
            "snapshot": False,
        }
    )


def removals(settings: Settings, numbers: range) -> str:
    """A removal set of those rows; its URI."""
    uri = join(settings.store_root, "removals", f"{numbers.start}-{numbers.stop}.csv")
    store_for(uri).write(uri, "\n".join(["sample_id", *(f"row-{number:04d}" for number in numbers)]).encode())
    return uri
