"""Removal files in each format, and what they are refused for."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oubli.registry.errors import RemovalSetError
from oubli.registry.removals.removal_set import RemovalSet, RowReference, read_removal_set
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join

Row = dict[str, str | None]


def as_csv(rows: Sequence[Row]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))

    def cell(value: str | None) -> str:
        return "" if value is None else '"' + value.replace('"', '""') + '"'

    lines = [",".join(names), *(",".join(cell(row.get(name)) for name in names) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def as_json_lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(rows: Sequence[Row]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


FORMATS = {
    ".csv": as_csv,
    ".jsonl": as_json_lines,
    ".ndjson": as_json_lines,
    ".json": as_json_lines,
    ".parquet": as_parquet,
}


def given_file(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def fields(found: RemovalSet) -> list[tuple[str | None, ...]]:
    return [(row.sample_id, row.subject_id, row.request_id, row.received_at, row.reason) for row in found.rows]


@pytest.mark.parametrize("suffix", FORMATS)
def test_reads_each_format(suffix: str, tmp_path: Path) -> None:
    rows: list[Row] = [
        {"sample_id": "007", "subject_id": None, "request_id": "r1", "received_at": "2026-01-31", "reason": "a,\nb"},
        {"sample_id": "NA", "subject_id": None, "request_id": None, "received_at": None, "reason": None},
        {"sample_id": None, "subject_id": "2026-01-31", "request_id": "r1", "received_at": None, "reason": 'ü"'},
    ]
    uri = given_file(tmp_path, f"removals{suffix}", FORMATS[suffix](rows))
    found = read_removal_set([uri])
    assert fields(found) == [tuple(row.values()) for row in rows]
    assert [row.reference for row in found.rows] == [RowReference(uri, number) for number in (1, 2, 3)]


def test_reads_from_every_store(root: str) -> None:
    uris = [join(root, f"removals{suffix}") for suffix in FORMATS]
    for number, (uri, write) in enumerate(zip(uris, FORMATS.values(), strict=True)):
        store_for(uri).write(uri, write([{"sample_id": f"s{number}"}]))
    assert [row.sample_id for row in read_removal_set(uris).rows] == ["s0", "s1", "s2", "s3", "s4"]


# The characters that formats disagree on are escapes of their own; a blank id is an error tested below.
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
row_lists = st.lists(
    st.one_of(
        st.fixed_dictionaries({"sample_id": ids, "request_id": st.none() | ids}),
        st.fixed_dictionaries({"subject_id": ids, "request_id": st.none() | ids}),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=40)
@given(row_lists)
def test_formats_agree(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("formats")
    expected = [(row.get("sample_id"), row.get("subject_id"), row["request_id"], None, None) for row in rows]
    for suffix in (".csv", ".jsonl", ".parquet"):
        uri = given_file(folder, f"removals{suffix}", FORMATS[suffix](rows))
        assert fields(read_removal_set([uri])) == expected, suffix


def test_other_columns_windows_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    data = "\ufeffname,sample_id,age\r\nAnn,007,\r\n\r\nBob,008,x\r\n".encode()
    uri = given_file(tmp_path, "removals.CSV", data)
    assert [row.sample_id for row in read_removal_set([uri]).rows] == ["007", "008"]


def test_integers_become_their_digits(tmp_path: Path) -> None:
    table = pa.table(
        {
            "sample_id": pa.array([7, 2**62], pa.int64()),
            "request_id": pa.array(["r", "r"]).dictionary_encode(),
            "received_at": pa.array([datetime.datetime(2026, 1, 31), None], pa.timestamp("s")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert fields(read_removal_set([str(tmp_path / "a.parquet")])) == [
        ("7", None, "r", "2026-01-31 00:00:00.000", None),
        (str(2**62), None, "r", None, None),
    ]
    uri = given_file(tmp_path, "a.jsonl", b'{"sample_id": 7}\n\n{"sample_id": 123456789012345678901234567890}')
    assert [row.sample_id for row in read_removal_set([uri]).rows] == ["7", "123456789012345678901234567890"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b" \n\n", "is empty"),
        ("a.csv", b"sample_id,reason\n", "is empty"),
        ("a.jsonl", b"\n", "is empty"),
        ("a.parquet", as_parquet([{"sample_id": "x"}])[:40], "is corrupt: it is not Parquet"),
        ("a.parquet", b"sample_id\nsecret\n", "is corrupt: it is not Parquet"),
        ("a.csv", b"sample_id,reason\nsecret,1\nsecret,2,3\n", r"is corrupt: 1 lines .*line 3"),
        ("a.csv", b"sample_id,sample_id\nsecret,secret\n", "is corrupt: its first line repeats"),
        ("a.jsonl", b'{"sample_id": "a"}\n{"sample_id": "secret"\n', "is corrupt: line 2 is not JSON"),
        ("a.jsonl", b'{"sample_id": "a"}\n' + b"[" * 100_000, "is corrupt: line 2 is not JSON"),
        ("a.json", b'[{"sample_id": "secret"}]', "line 1 is not an object"),
        ("a.jsonl", b'{"sample_id": 1.5}', "line 1: expected text or an integer as sample_id, found float"),
        ("a.jsonl", b'{"sample_id": true}', "found bool"),
        ("a.csv", b"id,name\nsecret,Ann\n", "has no id column.*sample_id or subject_id"),
        ("a.jsonl", b'{"id": "secret"}', "has no id column"),
        ("a.parquet", as_parquet([{"id": "secret"}]), "has no id column"),
        ("a.xlsx", b"PK", r"unknown suffix.*\.csv, \.json, \.jsonl, \.ndjson, \.parquet"),
        ("removals", b"secret", "unknown suffix"),
        ("a.csv", "sample_id\nsecret-é\n".encode("latin-1"), "wrong encoding: byte 17 is not UTF-8"),
        ("a.jsonl", '{"sample_id": "é"}'.encode("latin-1"), "wrong encoding"),
        ("a.csv", "sample_id\nsecret\n".encode("utf-16"), "wrong encoding: byte 0"),
        ("a.csv", "sample_id\nsecret\n".encode("utf-16-le"), "wrong encoding: it holds zero bytes"),
        ("a.csv", b"sample_id,reason\na,\n,x\n  ,\n", r"2 rows have no id: .*a\.csv rows 2, 3"),
        ("a.jsonl", b'{"sample_id": "a"}\n{"sample_id": null}\n{"reason": "x"}', "2 rows have no id: .* rows 2, 3"),
        ("a.parquet", as_parquet([{"sample_id": None}]), r"1 rows have no id: .* row 1\."),
        (
            "a.csv",
            b"sample_id,subject_id\nsecret,secret\nsecret,\n" + b"secret,secret\n" * 7,
            r"8 rows have both a sample_id and a subject_id: .* rows 1, 3, 4, 5, 6 and 3 more",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    uri = given_file(tmp_path, name, data)
    with pytest.raises(RemovalSetError, match=message) as caught:
        read_removal_set([uri])
    assert uri in str(caught.value)
    assert caught.value.remedy
    # Ids are personal data, and messages end up in logs.
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("column", [pa.array([1.5]), pa.array([True]), pa.array([b"x"]), pa.array([["x"]])])
def test_parquet_ids_of_other_types_are_refused(column: pa.Array, tmp_path: Path) -> None:
    pq.write_table(pa.table({"sample_id": column}), tmp_path / "a.parquet")
    with pytest.raises(RemovalSetError, match="expected column sample_id of strings or integers, found type"):
        read_removal_set([str(tmp_path / "a.parquet")])


def test_a_missing_file_or_none_at_all(root: str) -> None:
    with pytest.raises(RemovalSetError, match=r"none\.csv is missing"):
        read_removal_set([join(root, "none.csv")])
    with pytest.raises(RemovalSetError, match="No removal set was given"):
        read_removal_set([])


@pytest.mark.slow
def test_long_files_keep_their_order_and_row_numbers(tmp_path: Path) -> None:
    # Longer than the blocks that the CSV reader cuts a file into.
    lines = [f's{number:06},"a reason\nof two lines"' for number in range(60_000)]
    uri = given_file(tmp_path, "a.csv", ("sample_id,reason\n" + "\n".join(lines)).encode())
    assert [row.sample_id for row in read_removal_set([uri]).rows] == [f"s{number:06}" for number in range(60_000)]
    lines[55_000] = ",x"
    uri = given_file(tmp_path, "b.csv", ("sample_id,reason\n" + "\n".join(lines)).encode())
    with pytest.raises(RemovalSetError, match=r"1 rows have no id: .* row 55001\."):
        read_removal_set([uri])
