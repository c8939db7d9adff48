"""Writing training data, and the digest that a training record names it by."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq

from oubli.registry.errors import TrainingDataError
from oubli.registry.storage.digests import PARQUET_SUFFIX, dataset_digest, file_digest
from oubli.registry.storage.local_store import local_path
from oubli.registry.storage.scratch import scratch
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import scheme_of
from oubli.registry.training.columns import require_columns, require_unique
from oubli.registry.training.dataset_files import UNKNOWN, local_root
from oubli.registry.training.training_record import DatasetReference, SplitRule

# A row group is what a reader holds in memory at once.
_ROW_GROUP_BYTES = 16 << 20


def write_training_data(
    table: pa.Table,
    uri: str,
    *,
    id_column: str = "sample_id",
    label_column: str = "label",
    subject_column: str | None = None,
    split: SplitRule | None = None,
) -> DatasetReference:
    """Write a table as one Parquet file (zstd).

    Args:
        table: One row per sample, training and test rows together.
        uri: Where the file goes: s3://bucket/key, file:///folder/name or a local path.
        id_column: Column of unique sample ids (string).
        label_column: Column of labels or targets.
        subject_column: Column of the person or owner of each sample (string), if there is one.
        split: Which rows train and which test; by default those that a column `split` says.

    Returns:
        The reference for a training record.

    Raises:
        TrainingDataError: The table is empty, a column is absent or of the wrong type, or ids repeat.
        StoreError: The store cannot be written.
    """
    reference = DatasetReference(
        # Absolute: a training record is read from other folders than the one it was written in.
        uri=uri if scheme_of(uri) else local_path(uri).resolve().as_uri(),
        sha256=UNKNOWN,
        id_column=id_column,
        label_column=label_column,
        subject_column=subject_column,
        split=split or SplitRule(),
    )
    require_columns(table.schema, reference)
    if not len(table):
        raise TrainingDataError("The table has no rows.", remedy="Give the samples the model is trained on.")
    require_unique(table.column(id_column), reference)
    path = scratch() / f"{os.urandom(8).hex()}{PARQUET_SUFFIX}"
    rows_per_group = max(1, _ROW_GROUP_BYTES * len(table) // max(table.nbytes, 1))
    try:
        pq.write_table(table, path, compression="zstd", row_group_size=rows_per_group)
        store_for(uri).upload(path, uri)
        return reference.model_copy(update={"sha256": file_digest(path)})
    finally:
        path.unlink(missing_ok=True)


def dataset_sha256(uri: str) -> str:
    """The digest of the training data at `uri` as it is now, for a new training record.

    Raises:
        ObjectMissing: There is no such data.
        StoreError: The store cannot be read.
    """
    return dataset_digest(local_root(uri, UNKNOWN))
