"""The training data behind a model version: verified against its digest, streamed by predicate.

Axes: n samples. Rows come in the order of the stored parts (sorted by path) and of the rows in them, always.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import torch

from oubli.components.model.samples import Samples
from oubli.registry.errors import TrainingDataError
from oubli.registry.training.decoders import decode, decode_labels, decoder_columns
from oubli.registry.training.training_record import (
    AnyDecoder,
    DatasetReference,
    LabelKind,
    Split,
    TrainingRecord,
)
from oubli.registry.training.training_rows import TrainingRows, readable

_LOAD_ROWS = 4096


@dataclass(frozen=True)
class TrainingData(TrainingRows):
    """Training data whose digest and columns were checked. Made by `open` or `of`."""

    decoder: AnyDecoder
    labels: LabelKind

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
        rows = TrainingRows.find(reference, verify=verify)
        data = cls(rows.reference, rows.root, decoder, labels)
        # Column types are wrong for no rows as they are for many.
        data.decoded(pa.RecordBatch.from_pylist([], schema=data.dataset.schema))
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

    def labels_of(self, split: Split) -> tuple[tuple[str, ...], torch.Tensor]:
        """The split's ids and labels, without reading any input.

        Returns:
            Ids, and labels (n,) or (n, k), both in stored order.
        """
        reference = self.reference
        names = [reference.id_column, reference.label_column]
        rows = pc.field(reference.split.column) == reference.split.value(split)
        with readable(reference.uri):
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
        with readable(data.reference.uri):
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
