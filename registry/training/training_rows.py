"""The rows of training data without their inputs: ids, splits and subjects. Reading them costs no import of torch.

Rows come in the order of the stored parts (sorted by path) and of the rows in them, always.
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

from oubli.registry.errors import TrainingDataError
from oubli.registry.storage.digests import dataset_parts
from oubli.registry.training.columns import require_columns, require_unique
from oubli.registry.training.dataset_files import local_root, verify_digest
from oubli.registry.training.training_record import DatasetReference, Split


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
class TrainingRows:
    """Training data whose digest and columns of text were checked. Made by `find`."""

    reference: DatasetReference
    root: Path
    """The Parquet file, or the folder of parts, on this machine."""

    @classmethod
    def find(cls, reference: DatasetReference, *, verify: bool = True) -> TrainingRows:
        """Find the data (from S3: download it once per process), check its digest and its columns of text.

        Args:
            reference: Where the data lies, its digest, and its columns.
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
        rows = TrainingRows(reference, root)
        require_columns(rows.dataset.schema, reference)
        return rows

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

    @cached_property
    def dataset(self) -> ds.Dataset:
        """The parts as Arrow reads them."""
        with readable(self.reference.uri):
            return ds.dataset([str(part) for part in dataset_parts(self.root)], format="parquet")

    @cached_property
    def _index(self) -> pa.Table:
        """Id, split and, where there is one, subject of every row."""
        reference = self.reference
        names = [reference.id_column, reference.split.column]
        if reference.subject_column is not None:
            names.append(reference.subject_column)
        with readable(reference.uri):
            table = self.dataset.to_table(columns=list(dict.fromkeys(names)))
        require_unique(table.column(reference.id_column), reference)
        return table

    def rows_of(self, split: Split) -> pa.Table:
        """Id, split and, where there is one, subject of every row of the split, in stored order."""
        rule = self.reference.split
        return self._index.filter(pc.field(rule.column) == rule.value(split))


@contextmanager
def readable(uri: str) -> Iterator[None]:
    """What Arrow raises in the body is raised as a TrainingDataError that names the data."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise TrainingDataError(
            f"The training data {uri} cannot be read as Parquet: {error}.",
            remedy="Restore the recorded file.",
        ) from error
