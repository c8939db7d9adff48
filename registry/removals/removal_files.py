"""Removal files: Parquet, CSV or JSON lines, read into columns of text.

Columns: sample_id or subject_id, and optionally request_id, received_at and reason; others are passed over. Ids are
text: a CSV id 007 stays "007", an integer in Parquet or JSON becomes its decimal digits.

No message of this module shows an id. Ids are personal data, and messages end up in logs.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import deque
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from oubli.registry.errors import ObjectMissing, RemovalSetError
from oubli.registry.storage.stores import store_for

ID_COLUMNS = ("sample_id", "subject_id")
COLUMNS = (*ID_COLUMNS, "request_id", "received_at", "reason")

Columns = dict[str, list[str | None]]
"""Values by column name, all of one length. None where a row has no value."""


def read_columns(uri: str) -> Columns:
    """The columns of a removal file that have a meaning here, whichever of them it has.

    Args:
        uri: A file in any store; its suffix says its format.

    Raises:
        RemovalSetError: The file is missing, empty or unreadable, has an unknown suffix, or has no id column.
        StoreError: The store cannot be read.
    """
    reader = _READERS.get(_suffix(uri))
    if reader is None:
        raise RemovalSetError(
            f"The removal set {uri} has an unknown suffix.", remedy=f"Use one of {', '.join(sorted(_READERS))}."
        )
    try:
        data = store_for(uri).read(uri)
    except ObjectMissing as error:
        raise RemovalSetError(f"The removal set {uri} is missing.", remedy="Check the URI.") from error
    if not data.strip():
        raise _empty(uri)
    columns = reader(data, uri)
    if not any(name in columns for name in ID_COLUMNS):
        raise RemovalSetError(
            f"The removal set {uri} has no id column.",
            remedy="Name a column sample_id or subject_id (in CSV, in a first line separated by commas).",
        )
    if not len(next(iter(columns.values()))):
        raise _empty(uri)
    return columns


def _suffix(uri: str) -> str:
    name = uri.rpartition("/")[2]
    return name[name.rindex(".") :].lower() if "." in name else ""


def _read_csv(data: bytes, uri: str) -> Columns:
    text = _utf8(data, uri)
    header = _csv_header(text, uri)
    try:
        # Arrow takes an unclosed quote for a value that runs to the end of the file, rows and all.
        deque(csv.reader(io.StringIO(text, newline=""), strict=True), maxlen=0)
    except csv.Error as error:
        raise _corrupt(uri, f"its quotation marks do not match ({error})") from error
    if not header:
        return {}
    broken: list[int] = []

    def note(row: pa_csv.InvalidRow) -> str:
        # Its number alone: Arrow's own message would quote the row, ids included.
        broken.append(row.number)
        return "skip"

    try:
        table = pa_csv.read_csv(
            io.BytesIO(data.removeprefix(codecs.BOM_UTF8)),
            # One thread, which is what numbers the rows.
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=pa_csv.ConvertOptions(
                include_columns=header,
                column_types=dict.fromkeys(header, pa.string()),
                # By default "NA" and "null" would be nulls; here they may be ids.
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowException as error:
        raise _corrupt(uri, "it is not CSV") from error
    if broken:
        raise _corrupt(uri, f"{len(broken)} lines have a wrong number of fields (first: line {broken[0]})")
    return _column_lists(table)


def _csv_header(text: str, uri: str) -> list[str]:
    """The columns of the first line that have a meaning here."""
    try:
        names = next(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise _corrupt(uri, "its first line is not CSV") from error
    known = [name for name in names if name in COLUMNS]
    if len(set(known)) < len(known):
        raise _corrupt(uri, "its first line repeats a column name")
    return known


def _read_json_lines(data: bytes, uri: str) -> Columns:
    """One object per line. Read by Python's parser, because Arrow's takes text like 2026-01-31 for a time."""
    columns: Columns = {}
    rows = 0
    for number, line in enumerate(_utf8(data, uri).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _corrupt(uri, f"line {number} is not JSON") from error
        if not isinstance(value, dict):
            raise _corrupt(uri, f"line {number} is not an object (write one object per line)")
        for name in COLUMNS:
            if name in value:
                columns.setdefault(name, [None] * rows).append(_json_text(value[name], name, number, uri))
            elif name in columns:
                columns[name].append(None)
        rows += 1
    return columns


def _json_text(value: Any, name: str, number: int, uri: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    # To Python a boolean is an integer; it is no id.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RemovalSetError(
        f"The removal set {uri}, line {number}: expected text or an integer as {name}, found {type(value).__name__}.",
        remedy="Write it in quotation marks.",
    )


def _read_parquet(data: bytes, uri: str) -> Columns:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [name for name in COLUMNS if name in file.schema_arrow.names]
        table = file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(uri, "it is not Parquet") from error
    if table.num_columns != len(names):
        raise _corrupt(uri, "it repeats a column name")
    for position, name in enumerate(names):
        stored = table.schema.field(name).type
        value = stored.value_type if pa.types.is_dictionary(stored) else stored
        is_time = pa.types.is_temporal(value) and name not in ID_COLUMNS
        if not (
            pa.types.is_string(value)
            or pa.types.is_large_string(value)
            or pa.types.is_integer(value)
            or is_time
            or pa.types.is_null(value)
        ):
            raise RemovalSetError(
                f"The removal set {uri}: expected column {name} of strings or integers, found type {stored}.",
                remedy="Cast the column to string.",
            )
        table = table.set_column(position, name, table.column(name).cast(value).cast(pa.string()))
    try:
        return _column_lists(table)
    except UnicodeDecodeError as error:
        raise _corrupt(uri, "a text column is not UTF-8") from error


def _column_lists(table: pa.Table) -> Columns:
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _utf8(data: bytes, uri: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _encoding(uri, f"byte {error.start} is not UTF-8") from error
    if "\0" in text:
        raise _encoding(uri, "it holds zero bytes, as UTF-16 does")
    return text


def _encoding(uri: str, reason: str) -> RemovalSetError:
    return RemovalSetError(f"The removal set {uri} has the wrong encoding: {reason}.", remedy="Save it as UTF-8.")


def _corrupt(uri: str, reason: str) -> RemovalSetError:
    return RemovalSetError(f"The removal set {uri} is corrupt: {reason}.", remedy="Export the file again.")


def _empty(uri: str) -> RemovalSetError:
    return RemovalSetError(f"The removal set {uri} is empty.", remedy="Give at least one id.")


_READERS = {
    ".csv": _read_csv,
    ".json": _read_json_lines,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
