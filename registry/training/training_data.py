"""The training data behind a model version: verified against its digest, streamed by predicate.

Axes: n samples. Rows come in the order of the stored parts (sorted by path) and of the rows in them, always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch

from oubli.components.model.samples import Samples
from oubli.registry.errors import TrainingDataError
from oubli.registry.storage.digests import dataset_parts
from oubli.registry.training.columns import require_columns, require_unique
from oubli.registry.training.dataset_files import local_root, verify_digest
from oubli.registry.training.decoders import decode, decode_labels, decoder_columns
from oubli.registry.training.training_record import (
    AnyDecoder,
    DatasetReference,
    LabelKind,
    Split,
    TrainingRecord,
)

_LOAD_ROWS = 4096


@dataclass(frozen=True)
class TrainingIds:
    """The samples a model was trained on."""

    ids: tuple[str, ...] = field(repr=False)
    """Unique, in stored order."""
    samples_of: Mapping[str, tuple[str, ...]] | None = field(default=None, repr=False)
    """The samples of each subject; None where the record has no subject column."""

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def known(self) -> frozenset[str]:
        """The ids as a set."""
        return frozenset(self.ids)


@dataclass(frozen=True)
class TrainingData:
    """Training data whose digest and columns were checked. Made by `open` or `of`."""

    reference: DatasetReference
    decoder: AnyDecoder
    labels: LabelKind
    root: Path
    """The Parquet file, or the folder of parts, on this machine."""

    @classmethod
    def open(
        cls,
        reference: DatasetReference,
        decoder: AnyDecoder,
        labels: LabelKind,
        *,
        verify: bool = True,
    ) -> TrainingData:
        """Find the data (from S3: download it once per process), check its digest and its columns.

        Args:
            reference: Where the data lies, its digest, and its columns.
            decoder: How a row's columns become the model's input.
            labels: How the label column becomes a tensor.
            verify: Whether to check the digest. The columns are checked in any case.

        Raises:
            ObjectMissing: There is no such data.
            StoreError: The store cannot be read.
            DigestMismatch: The bytes are others than those recorded.
            TrainingDataError: The data is not Parquet, or a column is absent or of the wrong type.
        """
        root = local_root(reference.uri, reference.sha256)
        if verify:
            verify_digest(reference.uri, reference.sha256, root)
        data = cls(reference, decoder, labels, root)
        data._check_columns()
        return data

    @classmethod
    def of(cls, record: TrainingRecord, *, verify: bool = True) -> TrainingData:
        """The data that a training record names.

        Args:
            record: The training record.
            verify: As for `open`.

        Raises:
            OubliError: As `open` does.
        """
        return cls.open(record.dataset, record.decoder, record.label_kind, verify=verify)

    def ids(self) -> TrainingIds:
        """The training rows' ids, and the subjects they belong to."""
        rows = self.rows_of(Split.TRAIN)
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
        """The split's ids and labels, without reading any input.

        Returns:
            Ids, and labels (n,) or (n, k), both in stored order.
        """
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
        """The split's samples, or some of them, as a stream.

        Args:
            split: The training or the test rows.
            without: Ids to leave out.
            only: Ids to keep, less those in `without`; None for all.

        Raises:
            TrainingDataError: An id of `only` is not in the split. It would otherwise be lost silently.
        """
        ids = self.rows_of(split).column(self.reference.id_column).to_pylist()
        if only is not None and (absent := len(only.difference(ids))):
            raise TrainingDataError(
                f"{absent} of the {len(only)} samples asked for are not in the split {split} of {self.reference.uri}.",
                remedy="Ask for ids that `ids()` lists.",
            )
        count = sum(1 for each in ids if each not in without and (only is None or each in only))
        return ParquetSamples(self, split, without, only, count)

    @cached_property
    def dataset(self) -> ds.Dataset:
        """The parts as Arrow reads them."""
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
        require_unique(table.column(reference.id_column), reference)
        return table

    def rows_of(self, split: Split) -> pa.Table:
        """Id, split and, where there is one, subject of every row of the split, in stored order."""
        rule = self.reference.split
        return self._index.filter(pc.field(rule.column) == rule.value(split))

    def _check_columns(self) -> None:
        schema = self.dataset.schema
        require_columns(schema, self.reference)
        # Column types are wrong for no rows as they are for many.
        self.decoded(pa.RecordBatch.from_pylist([], schema=schema))

    def decoded(self, rows: pa.RecordBatch) -> Samples:
        """Inputs and labels of some rows.

        Raises:
            TrainingDataError: A column is not what the decoder describes.
        """
        labels = decode_labels(self.labels, self.reference.label_column, rows)
        return Samples(decode(self.decoder, rows), labels)


@dataclass(frozen=True)
class ParquetSamples:
    """A SampleSource that streams rows from Parquet, a few batches at a time. Made by `TrainingData.samples`."""

    data: TrainingData
    split: Split
    without: frozenset[str] = field(repr=False)
    only: frozenset[str] | None = field(repr=False)
    count: int

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Samples]:
        """Batches of exactly `size` samples but for the last, in stored order.

        Raises:
            ValueError: `size` is less than 1.
            TrainingDataError: The data cannot be read or decoded.
        """
        if size < 1:
            raise ValueError(f"batch size {size}, expected at least 1")
        data = self.data
        with _readable(data.reference.uri):
            for rows in _rebatched(self._scan(size), size):
                yield data.decoded(rows)

    def ids(self) -> tuple[str, ...]:
        """The ids of these samples, in the order of the batches."""
        rows = self.data.rows_of(self.split).column(self.data.reference.id_column).to_pylist()
        return tuple(each for each in rows if each not in self.without and (self.only is None or each in self.only))

    def load(self) -> Samples:
        """All of them in memory; with no samples, tensors of length 0.

        Raises:
            TrainingDataError: The data cannot be read or decoded.
        """
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
            return self.data.decoded(pa.RecordBatch.from_pylist([], schema=self.data.dataset.schema))
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
