"""What removal sets mean for the training data, and what they are refused for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oubli.registry.errors import RemovalSetError, UnknownIdsError
from oubli.registry.removals.removal_set import RemovalRow, RemovalSet, RowReference, UnknownIds, read_removal_set
from oubli.registry.training.training_rows import TrainingIds

Row = dict[str, str | None]

TRAINING = TrainingIds(("s1", "s2", "s3", "s4"), {"ann": ("s1", "s3"), "bob": ("s2",)})


def given_file(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def removal_set(tmp_path: Path, *rows: Row) -> RemovalSet:
    return read_removal_set([given_file(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)).encode())])


def test_resolves_to_sorted_samples(tmp_path: Path) -> None:
    found = removal_set(
        tmp_path,
        {"sample_id": "s4", "request_id": "r2"},
        {"subject_id": "ann", "request_id": "r1"},
        {"sample_id": "s4", "request_id": "r3"},
        {"sample_id": "s1"},
        {"subject_id": "ann"},
        {"subject_id": "bob"},
    ).resolve(TRAINING, frozenset({"s2", "s9"}))
    assert found.new_ids == ("s1", "s3", "s4")
    assert found.already_removed == ("s2",)
    assert found.request_ids == ("r1", "r2", "r3")
    assert found.duplicates == 2
    assert found.unknown_rows == ()
    # Neither a traceback nor a log of the result shows who is forgotten.
    assert "s4" not in repr(found)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=1),
    st.frozensets(st.integers(0, 12).map(str)),
)
def test_resolving_agrees_with_a_plain_reading(asked: list[tuple[bool, int]], removed: frozenset[str]) -> None:
    # Samples 0..9; subject k owns the samples that leave the remainder k by 3, and subjects 3.. own nothing.
    training = TrainingIds(
        tuple(str(number) for number in range(10)),
        {str(k): tuple(str(number) for number in range(k, 10, 3)) for k in range(3)},
    )
    rows = tuple(
        RemovalRow(
            RowReference("f", row), str(number) if sample else None, None if sample else str(number), None, None, None
        )
        for row, (sample, number) in enumerate(asked, start=1)
    )
    found = RemovalSet(rows).resolve(training, removed, unknown=UnknownIds.REPORT)
    meant = {
        str(owned)
        for sample, number in asked
        for owned in range(10)
        if (owned == number if sample else number < 3 and owned % 3 == number)
    }
    assert set(found.new_ids) | set(found.already_removed) == meant
    assert set(found.already_removed) == meant & removed
    assert list(found.new_ids) == sorted(set(found.new_ids))
    unknown = {(sample, number) for sample, number in asked if number >= (10 if sample else 3)}
    assert len(found.unknown_rows) == len(unknown)
    assert found.duplicates == len(asked) - len(set(asked))


def test_unknown_ids_are_named_by_row_and_not_by_id(tmp_path: Path) -> None:
    first = given_file(tmp_path, "a.csv", b"sample_id\ns1\nsecret\n" + b"".join(b"secret%d\n" % i for i in range(9)))
    second = given_file(tmp_path, "b.csv", b"subject_id\nann\nsecret\n")
    with pytest.raises(UnknownIdsError, match=r"10 ids .*a\.csv rows 2, 3, 4, 5, 6 and 5 more") as caught:
        read_removal_set([first]).resolve(TRAINING, frozenset())
    assert "secret" not in str(caught.value)
    two_files = RemovalSet((*read_removal_set([first]).rows[:2], *read_removal_set([second]).rows))
    with pytest.raises(UnknownIdsError, match=r"2 ids .*a\.csv row 2; .*b\.csv row 2\."):
        two_files.resolve(TRAINING, frozenset())


def test_unknown_ids_are_reported_when_asked(tmp_path: Path) -> None:
    asked = removal_set(tmp_path, {"sample_id": "x"}, {"sample_id": "s1"}, {"subject_id": "x"}, {"sample_id": "x"})
    found = asked.resolve(TRAINING, frozenset(), unknown=UnknownIds.REPORT)
    assert [place.row for place in found.unknown_rows] == [1, 3]
    assert found.new_ids == ("s1",)
    assert found.duplicates == 1


def test_subjects_need_a_subject_column(tmp_path: Path) -> None:
    asked = removal_set(tmp_path, {"sample_id": "s1"}, {"subject_id": "secret"})
    for policy in UnknownIds:
        with pytest.raises(RemovalSetError, match=r"row 2 .*no subject column") as caught:
            asked.resolve(TrainingIds(("s1",)), frozenset(), unknown=policy)
        assert "secret" not in str(caught.value)


def test_rows_do_not_print_ids(tmp_path: Path) -> None:
    shown = repr(removal_set(tmp_path, {"sample_id": "secret"}, {"subject_id": "secret"}))
    assert "secret" not in shown
