"""Training data on each store, against a plain reading of the table it was written from."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oubli.components.model.samples import Samples
from oubli.registry.errors import DigestMismatch, ObjectMissing, TrainingDataError
from oubli.registry.storage.digests import bytes_digest, dataset_digest
from oubli.registry.storage.scratch import scratch
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join
from oubli.registry.training.training_data import TrainingData, write_training_data
from oubli.registry.training.training_record import (
    DatasetReference,
    FactoryReference,
    ImageDecoder,
    LabelKind,
    Split,
    SplitRule,
    TrainingRecord,
    VectorDecoder,
)

DECODER = VectorDecoder(columns=("a", "b"))
ROWS = 103


def table(rows: int = ROWS) -> pa.Table:
    """Every fifth row is for testing; every seventh belongs to nobody."""
    return pa.table(
        {
            "sample_id": [f"s{(row * 37) % rows:03}" for row in range(rows)],
            "a": np.arange(rows, dtype=np.float64),
            "b": -np.arange(rows, dtype=np.int64),
            "label": np.arange(rows, dtype=np.int32) % 10,
            "split": ["test" if row % 5 == 0 else "train" for row in range(rows)],
            "owner": [None if row % 7 == 0 else f"p{row % 4}" for row in range(rows)],
        }
    )


def small_groups(folder: Path, name: str, part: pa.Table) -> None:
    """Row groups of sizes that fit no batch size."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(part, folder / name, row_group_size=17)


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


def slow_rows(split: str) -> list[dict[str, object]]:
    return [row for row in table().to_pylist() if row["split"] == split]


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


def test_writes_and_opens_on_every_store(root: str) -> None:
    uri = join(root, "data", "digits.parquet")
    reference = write_training_data(table(), uri, subject_column="owner")
    record = TrainingRecord(
        dataset=reference,
        decoder=DECODER,
        loss="cross_entropy",
        l2=0,
        n=len(slow_rows("train")),
        seed=0,
        factory=FactoryReference(target="a.b:c"),
        retrain=FactoryReference(target="a.b:d"),
        convex=True,
    )
    data = TrainingData.of(record)
    assert len(data.ids()) == record.n
    assert data.samples(Split.TEST).load().labels.tolist() == [row["label"] for row in slow_rows("test")]


def test_folders_of_parts_on_every_store(root: str, data: TrainingData) -> None:
    folder = join(root, "parts")
    for name in ("a.parquet", "b/x.parquet", "c.parquet", "_SUCCESS"):
        store_for(folder).upload(data.root / name, join(folder, name))
    # The digest of a folder does not depend on where it lies.
    reference = data.reference.model_copy(update={"uri": folder + "/"})
    moved = TrainingData.open(reference, DECODER, LabelKind.CLASS)
    assert moved.ids() == data.ids()
    assert torch.equal(moved.samples(Split.TRAIN).load().inputs, data.samples(Split.TRAIN).load().inputs)


def test_other_bytes_are_found_out(root: str) -> None:
    uri = join(root, "data.parquet")
    reference = write_training_data(table(), uri)
    TrainingData.open(reference, DECODER, LabelKind.CLASS)
    other = write_training_data(table().slice(1), uri)
    expected = rf"{reference.sha256}, found {other.sha256}.*Restore"
    if uri.startswith("s3:"):
        # This process goes on with the right bytes, which it has; another finds the wrong ones.
        TrainingData.open(reference, DECODER, LabelKind.CLASS)
        reference = reference.model_copy(update={"sha256": "0" * 64})
        expected = rf"{'0' * 64}, found {other.sha256}.*Restore"
    with pytest.raises(DigestMismatch, match=expected) as caught:
        TrainingData.open(reference, DECODER, LabelKind.CLASS)
    assert reference.uri in str(caught.value)
    unverified = TrainingData.open(reference, DECODER, LabelKind.CLASS, verify=False)
    assert len(unverified.samples(Split.TRAIN)) + len(unverified.samples(Split.TEST)) == ROWS - 1


@pytest.mark.s3
def test_readers_share_one_download_and_a_wrong_one_is_fetched_again(s3_root: str) -> None:
    uri = join(s3_root, "data.parquet")
    right = write_training_data(table(), uri)
    first = TrainingData.open(right, DECODER, LabelKind.CLASS)
    store_for(uri).delete(uri)
    assert TrainingData.open(right, DECODER, LabelKind.CLASS).root == first.root
    assert scratch() in first.root.parents
    # With wrong bytes in place the first attempt fails; once they are restored, the next one succeeds.
    wanted = write_training_data(table(50), uri)
    write_training_data(table(60), uri)
    with pytest.raises(DigestMismatch):
        TrainingData.open(wanted, DECODER, LabelKind.CLASS)
    write_training_data(table(50), uri)
    assert len(TrainingData.open(wanted, DECODER, LabelKind.CLASS).ids()) == 40


@pytest.mark.s3
def test_folder_markers_are_passed_over_and_names_stay_in_the_folder(s3_root: str) -> None:
    folder = join(s3_root, "parts")
    reference = write_training_data(table(), join(folder, "a.parquet"))
    lines = f"a.parquet {reference.sha256}\n"
    reference = reference.model_copy(update={"uri": folder + "/", "sha256": bytes_digest(lines.encode())})
    store_for(folder).write(folder + "/", b"")
    assert len(TrainingData.open(reference, DECODER, LabelKind.CLASS).samples(Split.TEST)) == 21
    # An empty step reads as an absolute path.
    stray = f"{folder}//{scratch().name}.parquet"
    store_for(folder).write(stray, b"x")
    with pytest.raises(TrainingDataError, match="empty step"):
        TrainingData.open(reference.model_copy(update={"sha256": "0" * 64}), DECODER, LabelKind.CLASS)
    store_for(folder).delete(stray)
    store_for(folder).delete(folder + "/")


def test_a_changed_byte_in_a_part_is_found_out(data: TrainingData) -> None:
    part = data.root / "b" / "x.parquet"
    bytes_ = bytearray(part.read_bytes())
    bytes_[100] ^= 1
    part.write_bytes(bytes_)
    with pytest.raises(DigestMismatch, match="not what the model was trained on"):
        TrainingData.open(data.reference, DECODER, LabelKind.CLASS)


def test_missing_data_is_named(root: str) -> None:
    reference = DatasetReference(uri=join(root, "none.parquet"), sha256="0" * 64)
    with pytest.raises(ObjectMissing, match=r"none\.parquet.*training record"):
        TrainingData.open(reference, DECODER, LabelKind.CLASS)


def test_a_folder_without_parquet_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(ObjectMissing, match=r"holds no \.parquet file"):
        TrainingData.open(DatasetReference(uri=str(tmp_path), sha256="0" * 64), DECODER, LabelKind.CLASS)


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


SCRATCH_USER = """
import os, sys
from oubli.registry.storage.scratch import scratch
folder = scratch()
(folder / "a").write_text("x")
child = os.fork()
if not child:
    own = scratch()
    (own / "b").write_text("y")
    sys.exit(0 if own != folder else 1)
assert os.waitpid(child, 0)[1] == 0
assert (folder / "a").exists()
print(folder)
"""


def test_the_scratch_folder_goes_with_its_process(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRATCH_USER], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent == tmp_path
    assert list(tmp_path.iterdir()) == []
