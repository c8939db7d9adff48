"""The columns that training data must have, and what is required of its ids."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from oubli.registry.errors import TrainingDataError
from oubli.registry.training.training_record import DatasetReference

_ROWS_SHOWN = 5


def require_columns(schema: pa.Schema, reference: DatasetReference) -> None:
    """Check that the columns which the reference names are there, ids, subjects and splits as strings.

    Raises:
        TrainingDataError: A column is absent or of another type.
    """
    uri = reference.uri
    texts = [reference.id_column, reference.split.column]
    if reference.subject_column is not None:
        texts.append(reference.subject_column)
    for name in [*texts, reference.label_column]:
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


def require_unique(ids: pa.ChunkedArray, reference: DatasetReference) -> None:
    """Check that every sample has an id of its own.

    Raises:
        TrainingDataError: An id is null or repeated.
    """
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
