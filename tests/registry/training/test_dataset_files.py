"""The files of a dataset on each store: one download for all readers, and other bytes found out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tables import DECODER, ROWS, table

from oubli.registry.errors import DigestMismatch, ObjectMissing, TrainingDataError
from oubli.registry.storage.digests import bytes_digest
from oubli.registry.storage.scratch import scratch
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import DatasetReference, LabelKind, Split
from oubli.registry.training.writing import write_training_data


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
