"""The training data behind a model version: verified against its digest, streamed by predicate.

Axes: n samples. Rows come in the order of the stored parts (sorted by path) and of the rows in them, always.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from oubli.components.model.samples import Samples
from oubli.registry.errors import DigestMismatch, ObjectMissing, TrainingDataError
from oubli.registry.storage.digests import PARQUET_SUFFIX, dataset_digest, dataset_parts, file_digest
from oubli.registry.storage.local_store import local_path
from oubli.registry.storage.scratch import scratch
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import scheme_of
from oubli.registry.training.decoders import decode, decode_labels, decoder_columns
from oubli.registry.training.training_record import (
    AnyDecoder,
    DatasetReference,
    LabelKind,
    Split,
    SplitRule,
    TrainingRecord,
)

# A row group is what a reader holds in memory at once.
_ROW_GROUP_BYTES = 16 << 20
_LOAD_ROWS = 4096
_ROWS_SHOWN = 5

_lock = threading.Lock()
_downloads: dict[tuple[str, str], Path] = {}


@dataclass(frozen=True)
class TrainingIds:
    """The samples a model was trained on.

    ids: unique, in stored order. samples_of: the samples of each subject; None where the record has no subject column.
    """

    ids: tuple[str, ...] = field(repr=False)
    samples_of: Mapping[str, tuple[str, ...]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset(self.ids)


@dataclass(frozen=True)
class TrainingData:
    """Training data whose digest and columns were checked. Made by `open` or `of`.

    root: the Parquet file, or the folder of parts, on this machine.
    """

    reference: DatasetReference
    decoder: AnyDecoder
    labels: LabelKind
    root: Path

    @classmethod
    def open(
        cls,
        reference: DatasetReference,
        decoder: AnyDecoder,
        labels: LabelKind,
        *,
        verify: bool = True,
    ) -> TrainingData:
        """Finds the data (from S3: downloads it once per process), checks its digest and its columns.

        `verify=False` skips the digest alone. Raises ObjectMissing and other StoreErrors, DigestMismatch,
        TrainingDataError.
        """
        root = _local_root(reference)
        if verify:
            _verify(reference, root)
        data = cls(reference, decoder, labels, root)
        _check_columns(data)
        return data

    @classmethod
    def of(cls, record: TrainingRecord, *, verify: bool = True) -> TrainingData:
        """The data that a training record names."""
        return cls.open(record.dataset, record.decoder, record.label_kind, verify=verify)

    def ids(self) -> TrainingIds:
        """The train split's ids, and whose they are."""
        rows = self._rows_of(Split.TRAIN)
        ids = tuple(rows.column(self.reference.id_column).to_pylist())
        if self.reference.subject_column is None:
            return TrainingIds(ids)
        samples_of: dict[str, list[str]] = {}
        subjects = rows.column(self.reference.subject_column).to_pylist()
        for sample_id, subject in zip(ids, subjects, strict=True):
            # A sample without a subject belongs to nobody who could ask for it.
            if subject is not None:
                samples_of.setdefault(subject, []).append(sample_id)
        return TrainingIds(ids, {subject: tuple(own) for subject, own in samples_of.items()})

    def labels_of(self, split: Split) -> tuple[tuple[str, ...], torch.Tensor]:
        """The split's ids and their labels (n, ...), in stored order, without reading any input."""
        reference = self.reference
        names = [reference.id_column, reference.label_column]
        rows = pc.field(reference.split.column) == reference.split.value(split)
        with _readable(reference.uri):
            table = self.dataset.to_table(columns=list(dict.fromkeys(names)), filter=rows).combine_chunks()
        batches = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        labels = torch.cat([decode_labels(self.labels, reference.label_column, batch) for batch in batches])
        return tuple(table.column(reference.id_column).to_pylist()), labels

    def samples(
        self,
        split: Split,
        *,
        without: frozenset[str] = frozenset(),
        only: frozenset[str] | None = None,
    ) -> ParquetSamples:
        """The split's samples, less those in `without`; with `only`, no others than those.

        TrainingDataError where an id of `only` is not in the split: it would be lost without a word.
        """
        ids = self._rows_of(split).column(self.reference.id_column).to_pylist()
        if only is not None and (absent := len(only.difference(ids))):
            raise TrainingDataError(
                f"{absent} of the {len(only)} samples asked for are not in the split {split} of {self.reference.uri}.",
                remedy="Ask for ids that `ids()` lists.",
            )
        count = sum(1 for each in ids if each not in without and (only is None or each in only))
        return ParquetSamples(self, split, without, only, count)

    @cached_property
    def dataset(self) -> ds.Dataset:
        with _readable(self.reference.uri):
            return ds.dataset([str(part) for part in dataset_parts(self.root)], format="parquet")

    @cached_property
    def _index(self) -> pa.Table:
        """Id, split and, where there is one, subject of every row."""
        reference = self.reference
        names = [reference.id_column, reference.split.column]
        if reference.subject_column is not None:
            names.append(reference.subject_column)
        with _readable(reference.uri):
            table = self.dataset.to_table(columns=list(dict.fromkeys(names)))
        _require_unique(table.column(reference.id_column), reference)
        return table

    def _rows_of(self, split: Split) -> pa.Table:
        rule = self.reference.split
        return self._index.filter(pc.field(rule.column) == rule.value(split))


@dataclass(frozen=True)
class ParquetSamples:
    """A SampleSource that streams rows from Parquet; it holds a few batches at a time. Made by TrainingData."""

    data: TrainingData
    split: Split
    without: frozenset[str] = field(repr=False)
    only: frozenset[str] | None = field(repr=False)
    count: int

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Samples]:
        """Batches of exactly `size` samples but for the last, in stored order. ValueError for size < 1."""
        if size < 1:
            raise ValueError(f"batch size {size}, expected at least 1")
        data = self.data
        with _readable(data.reference.uri):
            for rows in _rebatched(self._scan(size), size):
                yield Samples(decode(data.decoder, rows), decode_labels(data.labels, data.reference.label_column, rows))

    def ids(self) -> tuple[str, ...]:
        """The ids of these samples, in the order of the batches."""
        rows = self.data._rows_of(self.split).column(self.data.reference.id_column).to_pylist()
        return tuple(each for each in rows if each not in self.without and (self.only is None or each in self.only))

    def load(self) -> Samples:
        """All of them in memory. With no samples: tensors of length 0."""
        inputs: torch.Tensor | None = None
        labels: torch.Tensor | None = None
        start = 0
        for batch in self.batches(_LOAD_ROWS):
            if inputs is None or labels is None:
                # Filled in place: joining the batches at the end would hold everything twice.
                inputs = batch.inputs.new_empty((self.count, *batch.inputs.shape[1:]))
                labels = batch.labels.new_empty((self.count, *batch.labels.shape[1:]))
            inputs[start : start + len(batch)] = batch.inputs
            labels[start : start + len(batch)] = batch.labels
            start += len(batch)
        if inputs is None or labels is None:
            empty = pa.RecordBatch.from_pylist([], schema=self.data.dataset.schema)
            data = self.data
            return Samples(decode(data.decoder, empty), decode_labels(data.labels, data.reference.label_column, empty))
        return Samples(inputs, labels)

    def _scan(self, size: int) -> Iterator[pa.RecordBatch]:
        data = self.data
        reference = data.reference
        id_type = data.dataset.schema.field(reference.id_column).type
        sample_id = pc.field(reference.id_column)
        rows = pc.field(reference.split.column) == reference.split.value(self.split)
        if self.without:
            rows &= ~sample_id.isin(pa.array(sorted(self.without), id_type))
        if self.only is not None:
            rows &= sample_id.isin(pa.array(sorted(self.only), id_type))
        columns = [*decoder_columns(data.decoder), reference.label_column]
        # Little read ahead: the consumer is slower than the disk, and rows may be large images.
        scan = data.dataset.to_batches(
            columns=list(dict.fromkeys(columns)),
            filter=rows,
            batch_size=size,
            batch_readahead=2,
            fragment_readahead=1,
        )
        return iter(scan)


def write_training_data(
    table: pa.Table,
    uri: str,
    *,
    id_column: str = "sample_id",
    label_column: str = "label",
    subject_column: str | None = None,
    split: SplitRule | None = None,
) -> DatasetReference:
    """Writes the table as one Parquet file (zstd) and returns the reference for a training record.

    TrainingDataError where a column is absent, is not of strings where it must be, or ids repeat.
    """
    rule = split or SplitRule()
    _require_columns(table.schema, uri, id_column, label_column, subject_column, rule.column)
    if not len(table):
        raise TrainingDataError("The table has no rows.", remedy="Give the samples the model is trained on.")
    path = scratch() / f"{os.urandom(8).hex()}{PARQUET_SUFFIX}"
    rows_per_group = max(1, _ROW_GROUP_BYTES * len(table) // max(table.nbytes, 1))
    try:
        pq.write_table(table, path, compression="zstd", row_group_size=rows_per_group)
        reference = DatasetReference(
            # Absolute: a training record is read from other folders than the one it was written in.
            uri=uri if scheme_of(uri) else local_path(uri).resolve().as_uri(),
            sha256=file_digest(path),
            id_column=id_column,
            label_column=label_column,
            subject_column=subject_column,
            split=rule,
        )
        _require_unique(table.column(id_column), reference)
        store_for(uri).upload(path, uri)
    finally:
        path.unlink(missing_ok=True)
    return reference


def dataset_sha256(uri: str) -> str:
    """The digest of the training data at `uri` as it is now, for a new training record."""
    not_known_yet = DatasetReference(uri=uri, sha256="0" * 64)
    return dataset_digest(_local_root(not_known_yet))


def _local_root(reference: DatasetReference) -> Path:
    uri = reference.uri
    if scheme_of(uri) in ("", "file"):
        root = local_path(uri)
        if not root.exists():
            raise ObjectMissing(f"No training data at {uri}.", remedy="Check the URI in the training record.")
    else:
        root = _downloaded(reference)
    if not dataset_parts(root):
        raise ObjectMissing(
            f"The folder {uri} holds no {PARQUET_SUFFIX} file.", remedy="Check the URI in the training record."
        )
    return root


def _downloaded(reference: DatasetReference) -> Path:
    """A copy in the scratch folder, which every reader in this process shares."""
    uri = reference.uri
    target = scratch() / f"{reference.sha256[:16]}-{os.urandom(4).hex()}"
    with _lock:
        # By digest too: other bytes under the same URI are another dataset.
        known = _downloads.get((uri, reference.sha256))
        if known is not None and known.exists():
            return known
        store = store_for(uri)
        # A console's marker object may lie under the folder's own name.
        if not uri.endswith("/") and store.exists(uri):
            store.download(uri, target)
        else:
            prefix = uri.rstrip("/") + "/"
            for part in store.list(uri):
                steps = PurePosixPath(part.uri.removeprefix(prefix))
                if steps.is_absolute():
                    # s3://bucket/parts//x: joined to a folder, it would be written outside of it.
                    raise TrainingDataError(f"{part.uri} has an empty step in its name.", remedy="Rename the object.")
                if steps.suffix == PARQUET_SUFFIX:
                    store.download(part.uri, target / steps)
            if not target.exists():
                raise ObjectMissing(f"No training data at {uri}.", remedy="Check the URI in the training record.")
        _downloads[uri, reference.sha256] = target
    return target


def _verify(reference: DatasetReference, root: Path) -> None:
    found = dataset_digest(root)
    if found == reference.sha256:
        return
    with _lock:
        # The next attempt must fetch what is there then, not this copy.
        copy = _downloads.pop((reference.uri, reference.sha256), None)
    if copy is not None:
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink(missing_ok=True)
    raise DigestMismatch(
        f"The training data {reference.uri} is not what the model was trained on: expected SHA-256 "
        f"{reference.sha256}, found {found}.",
        remedy="Restore the recorded bytes, or train again and register a new version.",
    )


def _check_columns(data: TrainingData) -> None:
    schema, reference = data.dataset.schema, data.reference
    _require_columns(
        schema,
        reference.uri,
        reference.id_column,
        reference.label_column,
        reference.subject_column,
        reference.split.column,
    )
    empty = pa.RecordBatch.from_pylist([], schema=schema)
    # Column types are wrong for no rows as they are for many.
    decode(data.decoder, empty)
    decode_labels(data.labels, reference.label_column, empty)


def _require_columns(
    schema: pa.Schema, uri: str, id_column: str, label_column: str, subject_column: str | None, split_column: str
) -> None:
    texts = [id_column, split_column] + ([] if subject_column is None else [subject_column])
    for name in [*texts, label_column]:
        if name not in schema.names:
            raise TrainingDataError(
                f"The training data {uri} has no column {name!r}; it has {', '.join(schema.names)}.",
                remedy="Name the right column in the training record, or add it to the data.",
            )
    for name in texts:
        stored = schema.field(name).type
        if not (pa.types.is_string(stored) or pa.types.is_large_string(stored)):
            raise TrainingDataError(
                f"Column {name!r} of the training data {uri}: expected strings, found type {stored}.",
                remedy="Cast the column to string; ids are compared as text.",
            )


def _require_unique(ids: pa.ChunkedArray, reference: DatasetReference) -> None:
    if ids.null_count:
        raise TrainingDataError(
            f"Column {reference.id_column!r} of {reference.uri} has {ids.null_count} nulls.",
            remedy="Give every sample an id.",
        )
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    first_row: dict[str, int] = {}
    # Row numbers rather than ids, which are personal data and would end up in logs.
    repeated = [row for row, each in enumerate(ids.to_pylist(), start=1) if first_row.setdefault(each, row) != row]
    shown = ", ".join(str(row) for row in repeated[:_ROWS_SHOWN])
    raise TrainingDataError(
        f"Column {reference.id_column!r} of {reference.uri} repeats ids in {len(repeated)} rows (first: {shown}).",
        remedy="Give every sample an id of its own.",
    )


def _rebatched(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly `size`, but for the last: filters and row groups leave odd sizes."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        start = 0
        while batch.num_rows - start >= size - rows:
            held.append(batch.slice(start, size - rows))
            start += size - rows
            yield _joined(held)
            held, rows = [], 0
        if start < batch.num_rows:
            held.append(batch.slice(start))
            rows += batch.num_rows - start
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise TrainingDataError(
            f"The training data {uri} cannot be read as Parquet: {error}.",
            remedy="Restore the recorded file.",
        ) from error
