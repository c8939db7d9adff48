"""Held-out rows: the same in every run, apart from those that are reported on, and not to be guessed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from records import training_record

from oubli.registry.training.held_out import HeldOutFrom, held_out_rows, keyed_choice
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import DatasetReference, SplitRule, TrainingRecord
from oubli.registry.training.writing import write_training_data

SPLITS = ["train"] * 4 + ["test"] * 9 + ["validation"] * 3


def record(folder: Path, *, validation: str | None = None, convex: bool = False) -> TrainingRecord:
    ids = [f"row-{number}" for number in range(len(SPLITS))]
    table = pa.table(
        {"sample_id": ids, "values": [[float(number)] for number in range(len(ids))], "label": [0] * len(ids)}
    ).append_column("split", pa.array(SPLITS))
    rule = SplitRule(validation=validation)
    uri = str(folder / "data.parquet")
    reference = write_training_data(table, uri, split=rule)
    assert isinstance(reference, DatasetReference)
    return training_record(dataset=reference, convex=convex)


def test_a_validation_split_is_held_out_and_all_of_test_reported_on(tmp_path: Path) -> None:
    of = record(tmp_path, validation="validation")
    rows = held_out_rows(TrainingData.of(of), of, str(tmp_path))
    assert rows.source is HeldOutFrom.VALIDATION
    assert rows.held_out is not None
    assert rows.held_out.ids() == ("row-13", "row-14", "row-15")
    assert len(rows.test) == 9


def test_without_one_half_of_test_is(tmp_path: Path) -> None:
    of = record(tmp_path)
    data = TrainingData.of(of)
    rows, again = (held_out_rows(data, of, str(tmp_path)) for _ in range(2))
    assert rows.source is HeldOutFrom.TEST
    assert rows.held_out is not None
    assert again.held_out is not None
    assert (len(rows.held_out), len(rows.test)) == (4, 5)
    assert rows.held_out.ids() == again.held_out.ids()
    assert {*rows.held_out.ids(), *rows.test.ids()} == {f"row-{number}" for number in range(4, 13)}


def test_a_convex_model_reports_on_all_of_test(tmp_path: Path) -> None:
    of = record(tmp_path, convex=True)
    rows = held_out_rows(TrainingData.of(of), of, str(tmp_path))
    assert (rows.source, rows.held_out, len(rows.test)) == (HeldOutFrom.NOWHERE, None, 9)


def test_another_store_draws_other_rows(tmp_path: Path) -> None:
    ids = tuple(f"row-{number}" for number in range(1000))
    one, other = (keyed_choice(ids, 500, str(tmp_path / name), "held-out") for name in ("one", "other"))
    assert len(one) == len(other) == 500
    assert one != other


@pytest.mark.parametrize("count", [3, 4])
def test_no_more_than_there_are_can_be_drawn(tmp_path: Path, count: int) -> None:
    assert keyed_choice(("a", "b", "c"), count, str(tmp_path), "held-out") == {"a", "b", "c"}


def test_draws_for_different_purposes_differ(tmp_path: Path) -> None:
    ids = tuple(f"row-{number}" for number in range(1000))
    one, other = (keyed_choice(ids, 500, str(tmp_path), purpose) for purpose in ("held-out", "outputs"))
    assert one != other
