"""Removal sets: who or what is to be forgotten, row by row, and which samples that means.

In each row exactly one of sample_id and subject_id has a value.

No message of this module shows an id. Ids are personal data, and messages end up in logs; rows are named by file and
number instead. Rows are counted from 1, the header and blank lines not included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from oubli.registry.errors import RemovalSetError, UnknownIdsError
from oubli.registry.removals.removal_files import COLUMNS, read_columns

if TYPE_CHECKING:
    from oubli.registry.training.training_rows import TrainingIds

_ROWS_SHOWN = 5


class UnknownIds(StrEnum):
    """What to do about ids that the training data does not hold."""

    ERROR = "error"
    REPORT = "report"


@dataclass(frozen=True, order=True)
class RowReference:
    """Names a row of a removal set without its ids."""

    uri: str
    row: int
    """From 1, the header and blank lines not counted."""


@dataclass(frozen=True)
class RemovalRow:
    """One row of a removal set: either a sample or a subject."""

    reference: RowReference
    sample_id: str | None = field(repr=False)
    subject_id: str | None = field(repr=False)
    request_id: str | None
    received_at: str | None
    reason: str | None


@dataclass(frozen=True)
class ResolvedRemoval:
    """What a removal set means for the training data. Tuples are sorted; no id is in two of them."""

    new_ids: tuple[str, ...] = field(repr=False)
    """Samples to remove now."""
    already_removed: tuple[str, ...] = field(repr=False)
    """Samples asked for that earlier versions removed."""
    request_ids: tuple[str, ...]
    """The requests that the rows name."""
    duplicates: int
    """Rows that repeat an earlier row's id."""
    unknown_rows: tuple[RowReference, ...]
    """Rows whose id is not in the training data."""


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
        """The samples meant. A subject means all of its samples in the training data.

        Args:
            training_ids: The samples that the model was trained on.
            already_removed: Ids that the version to remove from no longer holds.
            unknown: What to do about ids that the training data does not hold.

        Raises:
            RemovalSetError: A row names a subject, but the training record has no subject column.
            UnknownIdsError: An id is unknown, and `unknown` does not say to report it.
        """
        by_subject = [row for row in self.rows if row.subject_id is not None]
        if by_subject and training_ids.samples_of is None:
            raise RemovalSetError(
                f"{_shown(row.reference for row in by_subject)} ask by subject_id, but the training record has no "
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
                unknown_rows.append(row.reference)
        if unknown_rows and unknown is UnknownIds.ERROR:
            raise UnknownIdsError(
                f"{len(unknown_rows)} ids are not in the training data: {_shown(unknown_rows)}.",
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
    """Read removal files, in the order given.

    Args:
        uris: Parquet, CSV or JSON lines, in any store.

    Raises:
        RemovalSetError: No file is given; one is missing, empty or unreadable; or a row has no id, or two.
        StoreError: A store cannot be read.
    """
    if not uris:
        raise RemovalSetError("No removal set was given.", remedy="Name at least one file.")
    return RemovalSet(tuple(row for uri in uris for row in _rows(uri)))


def _rows(uri: str) -> Iterator[RemovalRow]:
    columns = read_columns(uri)
    length = len(next(iter(columns.values())))
    texts = [columns.get(name, [None] * length) for name in COLUMNS]
    rows = [
        RemovalRow(RowReference(uri, number), *(_text(value) for value in values))
        for number, values in enumerate(zip(*texts, strict=True), start=1)
    ]
    _require_one_id(rows)
    return iter(rows)


def _require_one_id(rows: Sequence[RemovalRow]) -> None:
    blank = [row.reference for row in rows if row.sample_id is None and row.subject_id is None]
    if blank:
        raise RemovalSetError(f"{len(blank)} rows have no id: {_shown(blank)}.", remedy="Fill in or drop them.")
    double = [row.reference for row in rows if row.sample_id is not None and row.subject_id is not None]
    if double:
        # One sample, or everything of that person? A wrong guess forgets too little or too much.
        raise RemovalSetError(
            f"{len(double)} rows have both a sample_id and a subject_id: {_shown(double)}.",
            remedy="Leave one of the two empty in each row.",
        )


def _samples_of(row: RemovalRow, training_ids: TrainingIds) -> tuple[str, ...]:
    if row.sample_id is not None:
        return (row.sample_id,) if row.sample_id in training_ids.known else ()
    if row.subject_id is None or training_ids.samples_of is None:
        return ()
    return training_ids.samples_of.get(row.subject_id, ())


def _text(value: str | None) -> str | None:
    return value if value is not None and value.strip() else None


def _shown(references: Iterable[RowReference]) -> str:
    """The first few rows, by file: "a.csv rows 1, 4; b.csv row 2"."""
    ordered = list(references)
    by_file: dict[str, list[str]] = {}
    for reference in ordered[:_ROWS_SHOWN]:
        by_file.setdefault(reference.uri, []).append(str(reference.row))
    shown = "; ".join(f"{uri} row{'s' * (len(rows) > 1)} {', '.join(rows)}" for uri, rows in by_file.items())
    return f"{shown} and {len(ordered) - _ROWS_SHOWN} more" if len(ordered) > _ROWS_SHOWN else shown
