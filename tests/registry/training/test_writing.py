"""What is written is what a record can name; what cannot be used is not written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records import training_record
from tables import DECODER, slow_rows, table

from oubli.registry.errors import TrainingDataError
from oubli.registry.storage.digests import dataset_digest
from oubli.registry.storage.uris import join
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import DatasetReference, LabelKind, Split
from oubli.registry.training.writing import write_training_data


def test_writes_and_opens_on_every_store(root: str) -> None:
    uri = join(root, "data", "digits.parquet")
    reference = write_training_data(table(), uri, subject_column="owner")
    record = training_record(dataset=reference, decoder=DECODER, n=len(slow_rows("train")))
    data = TrainingData.of(record)
    assert len(data.ids()) == record.n
    assert data.samples(Split.TEST).load().labels.tolist() == [row["label"] for row in slow_rows("test")]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["secret", "b", "secret", "secret"], r"repeats ids in 2 rows \(first: 3, 4\)"),
        (["a", None, "b", "c"], "has 1 nulls"),
    ],
)
def test_ids_are_unique_and_present(ids: list[str | None], message: str, tmp_path: Path) -> None:
    wrong = table().slice(0, 4).set_column(0, "sample_id", pa.array(ids))
    path = tmp_path / "a.parquet"
    with pytest.raises(TrainingDataError, match=message):
        write_training_data(wrong, str(path))
    assert list(tmp_path.iterdir()) == []
    pq.write_table(wrong, path)
    data = TrainingData.open(DatasetReference(uri=str(path), sha256=dataset_digest(path)), DECODER, LabelKind.CLASS)
    for attempt in (data.ids, lambda: data.samples(Split.TRAIN)):
        with pytest.raises(TrainingDataError, match=message) as caught:
            attempt()
        assert "secret" not in str(caught.value)


def test_an_empty_table_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="no rows"):
        write_training_data(table().slice(0, 0), str(tmp_path / "a.parquet"))
