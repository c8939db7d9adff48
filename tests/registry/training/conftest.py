"""Training data in parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tables import DECODER, small_groups, table

from oubli.registry.storage.digests import dataset_digest
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import DatasetReference, LabelKind


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    """Three parts; the middle one in a folder below, and their names not in the order they were written."""
    folder = tmp_path / "parts"
    small_groups(folder, "c.parquet", table().slice(70))
    small_groups(folder / "b", "x.parquet", table().slice(31, 39))
    small_groups(folder, "a.parquet", table().slice(0, 31))
    (folder / "_SUCCESS").touch()
    reference = DatasetReference(uri=str(folder), sha256=dataset_digest(folder), subject_column="owner")
    return TrainingData.open(reference, DECODER, LabelKind.CLASS)
