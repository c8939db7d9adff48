"""Training data on each store, against a plain reading of the table it was written from."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tables import DECODER, ROWS, slow_rows, small_groups, table

from oubli.components.model.samples import Samples
from oubli.registry.errors import TrainingDataError
from oubli.registry.storage.digests import dataset_digest
from oubli.registry.storage.scratch import scratch
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import (
    DatasetReference,
    ImageDecoder,
    LabelKind,
    Split,
    SplitRule,
    VectorDecoder,
)
from oubli.registry.training.writing import write_training_data


def test_ids_and_subjects(data: TrainingData) -> None:
    rows = slow_rows("train")
    ids = data.ids()
    assert ids.ids == tuple(row["sample_id"] for row in rows)
    assert len(ids) == len(rows)
    assert ids.known == set(ids.ids)
    owners = {row["owner"] for row in rows} - {None}
    assert ids.samples_of == {
        owner: tuple(row["sample_id"] for row in rows if row["owner"] == owner) for owner in owners
    }


def test_without_a_subject_column_there_are_no_subjects(data: TrainingData) -> None:
    reference = data.reference.model_copy(update={"subject_column": None})
    assert TrainingData.open(reference, DECODER, LabelKind.CLASS).ids().samples_of is None


@pytest.mark.slow
@given(
    split=st.sampled_from(Split),
    size=st.integers(1, 120),
    dropped=st.frozensets(st.integers(0, ROWS - 1)),
    kept=st.none() | st.frozensets(st.integers(0, ROWS - 1)),
)
def test_batches_agree_with_a_plain_reading(
    split: Split, size: int, dropped: frozenset[int], kept: frozenset[int] | None
) -> None:
    data = shared_data()
    rows = slow_rows(split.value)
    without = frozenset(f"s{number:03}" for number in dropped)
    only = None
    if kept is not None:
        only = frozenset(f"s{number:03}" for number in kept) & {row["sample_id"] for row in rows}
    meant = [row for row in rows if row["sample_id"] not in without and (only is None or row["sample_id"] in only)]
    source = data.samples(split, without=without, only=only)
    assert len(source) == len(meant)
    assert source.ids() == tuple(row["sample_id"] for row in meant)
    batches = list(source.batches(size))
    assert [len(batch) for batch in batches] == [
        len(meant[start : start + size]) for start in range(0, len(meant), size)
    ]
    loaded = source.load()
    assert loaded.inputs.tolist() == [[row["a"], row["b"]] for row in meant]
    assert loaded.labels.tolist() == [row["label"] for row in meant]
    assert loaded.inputs.dtype == torch.float32
    assert loaded.inputs.shape == (len(meant), 2)
    if batches:
        assert torch.equal(torch.cat([batch.inputs for batch in batches]), loaded.inputs)
        assert torch.equal(torch.cat([batch.labels for batch in batches]), loaded.labels)


_shared: list[TrainingData] = []


def shared_data() -> TrainingData:
    """Hypothesis runs many examples in one test, so the files are made once."""
    if not _shared:
        folder = scratch() / "shared"
        small_groups(folder, "a.parquet", table().slice(0, 40))
        small_groups(folder, "b.parquet", table().slice(40))
        reference = DatasetReference(uri=str(folder), sha256=dataset_digest(folder))
        _shared.append(TrainingData.open(reference, DECODER, LabelKind.CLASS))
    return _shared[0]


def test_a_source_can_be_passed_over_again_and_agrees_with_samples_in_memory(data: TrainingData) -> None:
    source = data.samples(Split.TRAIN)
    memory = source.load()
    assert isinstance(memory, Samples)
    for _ in range(2):
        for streamed, held in zip(source.batches(7), memory.batches(7), strict=True):
            assert torch.equal(streamed.inputs, held.inputs)
            assert torch.equal(streamed.labels, held.labels)
    with pytest.raises(ValueError, match="batch size 0"):
        next(source.batches(0))


def test_ids_that_are_not_in_the_split_are_not_lost_silently(data: TrainingData) -> None:
    held_out = str(slow_rows("test")[0]["sample_id"])
    with pytest.raises(TrainingDataError, match="2 of the 3 samples asked for are not in the split train") as caught:
        data.samples(Split.TRAIN, only=frozenset({held_out, "secret", data.ids().ids[0]}))
    assert "secret" not in str(caught.value)


def test_what_is_not_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"sample_id,label\n")
    reference = DatasetReference(uri=str(path), sha256=dataset_digest(path))
    with pytest.raises(TrainingDataError, match=r"a\.parquet cannot be read as Parquet"):
        TrainingData.open(reference, DECODER, LabelKind.CLASS)


def test_damage_inside_a_file_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path, compression="zstd")
    damaged = bytearray(path.read_bytes())
    # The pages come first and the schema last, so the file still opens.
    damaged[4 : len(damaged) // 2] = bytes(len(damaged) // 2 - 4)
    path.write_bytes(damaged)
    reference = DatasetReference(uri=str(path), sha256=dataset_digest(path))
    data = TrainingData.open(reference, DECODER, LabelKind.CLASS)
    with pytest.raises(TrainingDataError, match="cannot be read as Parquet"):
        data.samples(Split.TRAIN).load()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id_column": "id"}, "no column 'id'; it has sample_id, a, b, label, split, owner"),
        ({"label_column": "y"}, "no column 'y'"),
        ({"subject_column": "person"}, "no column 'person'"),
        ({"split": SplitRule(column="part")}, "no column 'part'"),
        ({"id_column": "b"}, "Column 'b'.*expected strings, found type int64"),
        ({"subject_column": "label"}, "Column 'label'.*expected strings, found type int32"),
        ({"label_column": "owner"}, "Column 'owner'.*expected numbers, found type string"),
    ],
)
def test_columns_are_checked_when_it_is_opened(data: TrainingData, changes: dict[str, object], message: str) -> None:
    reference = data.reference.model_copy(update=changes)
    with pytest.raises(TrainingDataError, match=message):
        TrainingData.open(reference, DECODER, LabelKind.CLASS)


def test_the_decoders_columns_are_checked_when_it_is_opened(data: TrainingData) -> None:
    with pytest.raises(TrainingDataError, match=r"'c'.*a column of that name"):
        TrainingData.open(data.reference, VectorDecoder(columns=("c",)), LabelKind.CLASS)
    with pytest.raises(TrainingDataError, match=r"'a'.*found type double"):
        TrainingData.open(data.reference, ImageDecoder(column="a", height=1, width=1, channels=1), LabelKind.CLASS)


@pytest.mark.slow
def test_images_of_the_real_layout(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), dtype=np.uint8)
    images = pa.table(
        {
            "sample_id": [str(row) for row in range(64)],
            "image": pa.array([row.tobytes() for row in pixels], pa.binary(784)),
            "label": np.arange(64) % 10,
            "split": ["train"] * 64,
        }
    )
    reference = write_training_data(images, str(tmp_path / "images.parquet"))
    decoder = ImageDecoder(height=28, width=28, channels=1)
    source = TrainingData.open(reference, decoder, LabelKind.CLASS).samples(Split.TRAIN)
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2) * np.float32(1 / 255)
    assert torch.equal(source.load().inputs, expected)
    # Batches outlive the file's buffers.
    batches = [batch.inputs for batch in source.batches(10)]
    gc.collect()
    assert torch.equal(torch.cat(batches), expected)
