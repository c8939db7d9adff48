"""Removal sets: who or what is to be forgotten, as Parquet, CSV or JSON lines.

Columns: sample_id or subject_id (in each row exactly one of them has a value), and optionally request_id, received_at
and reason. Ids are text: a CSV id 007 stays "007", an integer in Parquet or JSON becomes its decimal digits.

No message of this module shows an id. Ids are personal data, and messages end up in logs; rows are named by file and
number instead. Rows are counted from 1, the header and blank lines not included.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from oubli.registry.errors import ObjectMissing, RemovalSetError, UnknownIdsError
from oubli.registry.storage.stores import store_for

if TYPE_CHECKING:
    from oubli.registry.training.training_data import TrainingIds

_ID_COLUMNS = ("sample_id", "subject_id")
_COLUMNS = (*_ID_COLUMNS, "request_id", "received_at", "reason")
_ROWS_SHOWN = 5

_Columns = dict[str, list[str | None]]


class UnknownIds(StrEnum):
    """What to do about ids that the training data does not hold."""

    ERROR = "error"
    REPORT = "report"


@dataclass(frozen=True, order=True)
class RowReference:
    """A row of a removal set. row: from 1, the header and blank lines not counted."""

    uri: str
    row: int


@dataclass(frozen=True)
class RemovalRow:
    """One line of a removal set: either a sample or a subject."""

    place: RowReference
    sample_id: str | None = field(repr=False)
    subject_id: str | None = field(repr=False)
    request_id: str | None
    received_at: str | None
    reason: str | None


@dataclass(frozen=True)
class ResolvedRemoval:
    """A removal set against the training data. Tuples are sorted; no id is in two of them.

    new_ids: samples to remove now. already_removed: samples asked for that earlier versions removed.
    duplicates: rows that repeat an earlier row's id. unknown_rows: rows whose id is not in the training data.
    """

    new_ids: tuple[str, ...] = field(repr=False)
    already_removed: tuple[str, ...] = field(repr=False)
    request_ids: tuple[str, ...]
    duplicates: int
    unknown_rows: tuple[RowReference, ...]


@dataclass(frozen=True)
class RemovalSet:
    """What was asked to be forgotten, from one or several files."""

    rows: tuple[RemovalRow, ...]

    def resolve(
        self,
        training_ids: TrainingIds,
        already_removed: frozenset[str],
        *,
        unknown: UnknownIds = UnknownIds.ERROR,
    ) -> ResolvedRemoval:
        """The samples meant: subjects are expanded to all their samples in the training data.

        RemovalSetError where a subject is given and the training record names no subject column;
        UnknownIdsError where an id is unknown, unless `unknown` says to report it.
        """
        by_subject = [row for row in self.rows if row.subject_id is not None]
        if by_subject and training_ids.samples_of is None:
            raise RemovalSetError(
                f"{_places(row.place for row in by_subject)} ask by subject_id, but the training record has no "
                "subject column.",
                remedy="Ask by sample_id, or name the subject column in the training record.",
            )
        seen: set[tuple[str | None, str | None]] = set()
        asked: set[str] = set()
        unknown_rows: list[RowReference] = []
        duplicates = 0
        for row in self.rows:
            identity = (row.sample_id, row.subject_id)
            if identity in seen:
                duplicates += 1
                continue
            seen.add(identity)
            samples = _samples_of(row, training_ids)
            asked.update(samples)
            if not samples:
                unknown_rows.append(row.place)
        if unknown_rows and unknown is UnknownIds.ERROR:
            raise UnknownIdsError(
                f"{len(unknown_rows)} ids are not in the training data: {_places(unknown_rows)}.",
                remedy="Correct the rows, or set unknown_ids = 'report' to count them and go on.",
            )
        return ResolvedRemoval(
            new_ids=tuple(sorted(asked - already_removed)),
            already_removed=tuple(sorted(asked & already_removed)),
            request_ids=tuple(sorted({row.request_id for row in self.rows if row.request_id is not None})),
            duplicates=duplicates,
            unknown_rows=tuple(sorted(unknown_rows)),
        )


def read_removal_set(uris: Sequence[str]) -> RemovalSet:
    """Reads the files in the order given. RemovalSetError for a missing, empty or unreadable one, or wrong ids."""
    if not uris:
        raise RemovalSetError("No removal set was given.", remedy="Name at least one file.")
    return RemovalSet(tuple(row for uri in uris for row in _rows(uri)))


def _rows(uri: str) -> Iterator[RemovalRow]:
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
    if not any(name in columns for name in _ID_COLUMNS):
        raise RemovalSetError(
            f"The removal set {uri} has no id column.",
            remedy="Name a column sample_id or subject_id (in CSV, in a first line separated by commas).",
        )
    length = len(next(iter(columns.values())))
    if not length:
        raise _empty(uri)
    texts = [columns.get(name, [None] * length) for name in _COLUMNS]
    rows = [
        RemovalRow(RowReference(uri, number), *(_text(value) for value in values))
        for number, values in enumerate(zip(*texts, strict=True), start=1)
    ]
    _require_one_id(rows)
    return iter(rows)


def _require_one_id(rows: Sequence[RemovalRow]) -> None:
    blank = [row.place for row in rows if row.sample_id is None and row.subject_id is None]
    if blank:
        raise RemovalSetError(f"{len(blank)} rows have no id: {_places(blank)}.", remedy="Fill in or drop them.")
    double = [row.place for row in rows if row.sample_id is not None and row.subject_id is not None]
    if double:
        # One sample, or everything of that person? A wrong guess forgets too little or too much.
        raise RemovalSetError(
            f"{len(double)} rows have both a sample_id and a subject_id: {_places(double)}.",
            remedy="Leave one of the two empty in each row.",
        )


def _samples_of(row: RemovalRow, training_ids: TrainingIds) -> tuple[str, ...]:
    if row.sample_id is not None:
        return (row.sample_id,) if row.sample_id in training_ids.known else ()
    if row.subject_id is None or training_ids.samples_of is None:
        return ()
    return training_ids.samples_of.get(row.subject_id, ())


def _suffix(uri: str) -> str:
    name = uri.rpartition("/")[2]
    return name[name.rindex(".") :].lower() if "." in name else ""


def _text(value: str | None) -> str | None:
    return value if value is not None and value.strip() else None


def _read_csv(data: bytes, uri: str) -> _Columns:
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
    """The columns of the first line that mean something here."""
    try:
        names = next(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise _corrupt(uri, "its first line is not CSV") from error
    known = [name for name in names if name in _COLUMNS]
    if len(set(known)) < len(known):
        raise _corrupt(uri, "its first line repeats a column name")
    return known


def _read_json_lines(data: bytes, uri: str) -> _Columns:
    """One object per line. Python's parser, because Arrow's takes a text like 2026-01-31 for a time."""
    columns: _Columns = {}
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
        for name in _COLUMNS:
            if name in value:
                columns.setdefault(name, [None] * rows).append(_json_text(value[name], name, number, uri))
            elif name in columns:
                columns[name].append(None)
        rows += 1
    return columns


def _json_text(value: Any, name: str, number: int, uri: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    # A boolean is an int to Python, and not an id to anybody.
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RemovalSetError(
        f"The removal set {uri}, line {number}: expected text or an integer as {name}, found {type(value).__name__}.",
        remedy="Write it in quotation marks.",
    )


def _read_parquet(data: bytes, uri: str) -> _Columns:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [name for name in _COLUMNS if name in file.schema_arrow.names]
        table = file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(uri, "it is not Parquet") from error
    if table.num_columns != len(names):
        raise _corrupt(uri, "it repeats a column name")
    for place, name in enumerate(names):
        stored = table.schema.field(name).type
        value = stored.value_type if pa.types.is_dictionary(stored) else stored
        is_time = pa.types.is_temporal(value) and name not in _ID_COLUMNS
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
        table = table.set_column(place, name, table.column(name).cast(value).cast(pa.string()))
    try:
        return _column_lists(table)
    except UnicodeDecodeError as error:
        raise _corrupt(uri, "a text column is not UTF-8") from error


def _column_lists(table: pa.Table) -> _Columns:
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


def _places(places: Iterable[RowReference]) -> str:
    """The first few rows, by file: "a.csv rows 1, 4; b.csv row 2"."""
    ordered = list(places)
    by_file: dict[str, list[str]] = {}
    for place in ordered[:_ROWS_SHOWN]:
        by_file.setdefault(place.uri, []).append(str(place.row))
    shown = "; ".join(f"{uri} row{'s' * (len(rows) > 1)} {', '.join(rows)}" for uri, rows in by_file.items())
    return f"{shown} and {len(ordered) - _ROWS_SHOWN} more" if len(ordered) > _ROWS_SHOWN else shown


_READERS = {
    ".csv": _read_csv,
    ".json": _read_json_lines,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
