from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import typer
from pyarrow import csv, parquet
from typer.testing import CliRunner, Result

from oubli.cli.select import select
from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.registry.errors import DataError

COUNT = 400


@pytest.fixture
def table() -> pa.Table:
    draw = np.random.default_rng(0)
    noise = draw.standard_normal((COUNT, 3))
    switch = draw.random(COUNT) > 0.5
    return pa.table(
        {
            "name": [f"row {row}" for row in range(COUNT)],
            "first": noise[:, 0],
            "unrelated": noise[:, 1].astype(np.float32),
            "switch": switch,
            "steady": np.ones(COUNT, dtype=np.int16),
            "outcome": np.where(switch, noise[:, 0], -3 + noise[:, 0] ** 2),
        }
    )


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(select)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_it_prints_writes_and_draws_what_explains_the_target(form: str, table: pa.Table, tmp_path: Path) -> None:
    source, output, plot = tmp_path / f"t.{form}", tmp_path / "chosen.parquet", tmp_path / "scores.png"
    (parquet.write_table if form == "parquet" else csv.write_csv)(table, source)
    done = run(source, "--target", "outcome", "--output", output, "--plot", plot, "--seed", 3, "--threads", 1)
    assert done.exception is None, done.output
    assert "Left out, as they are not numbers: name." in done.output
    assert "Set aside, as they do not vary: steady." in done.output
    assert "Stopped: no gain left (the best column left would score -" in done.output
    chosen = parquet.read_table(output)
    assert set(chosen["column"].to_pylist()) == {"first", "switch"}
    assert chosen["step"].to_pylist() == [1, 2]
    assert all(0 < score <= 1 for score in chosen["score"].to_pylist())
    assert chosen.schema.metadata[b"seed"] == b"3"
    assert chosen.schema.metadata[b"stop"] == b"no gain left"
    for name, score in zip(chosen["column"].to_pylist(), chosen["score"].to_pylist(), strict=True):
        assert name in done.output
        assert f"{score:.4f}" in done.output
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_nothing_explains_noise(table: pa.Table, tmp_path: Path) -> None:
    source, output, plot = tmp_path / "t.parquet", tmp_path / "chosen.parquet", tmp_path / "scores.svg"
    table = table.set_column(5, "outcome", [np.zeros(COUNT)])
    parquet.write_table(table, source)
    done = run(source, "--target", "outcome", "--output", output, "--plot", plot)
    assert done.exception is None, done.output
    assert "Stopped: constant response." in done.output
    assert parquet.read_table(output).num_rows == 0
    assert plot.read_text().lstrip().startswith("<?xml")


def test_a_limit_is_kept(table: pa.Table, tmp_path: Path) -> None:
    parquet.write_table(table, tmp_path / "t.parquet")
    done = run(tmp_path / "t.parquet", "--target", "outcome", "--max-columns", 1)
    assert "Stopped: limit." in done.output


def test_input_that_cannot_be_used(table: pa.Table, tmp_path: Path) -> None:
    source = tmp_path / "t.parquet"
    parquet.write_table(table, source)

    def refusal(*arguments: object) -> BaseException:
        error = run(*arguments).exception
        assert error is not None
        return error

    def check(error: BaseException, kind: type[BaseException], text: str) -> None:
        assert isinstance(error, kind)
        assert text in str(error)

    check(refusal(source, "--target", "nothing"), ConfigurationError, "no single column 'nothing'. Its columns: name,")
    check(refusal(source, "--target", "name"), ConfigurationError, "'name': expected numbers, found string")
    check(refusal(tmp_path / "no.csv", "--target", "outcome"), DataError, "no.csv does not exist")
    check(refusal(tmp_path / "t.xlsx", "--target", "outcome"), ConfigurationError, "expected a file named .parquet")
    (tmp_path / "broken.parquet").write_bytes(b"not a table")
    check(refusal(tmp_path / "broken.parquet", "--target", "x"), DataError, "cannot be read as PARQUET")
    check(refusal(source, "--target", "outcome", "--device", "cuda:99"), ConfigurationError, "cuda:99")
    check(refusal(source, "--target", "outcome", "--plot", tmp_path / "s.what"), ConfigurationError, "cannot be drawn")
    check(refusal(source, "--target", "outcome", "--output", tmp_path / "no" / "o"), DataError, "cannot be written")
    for gap, text in ((None, "found 1 missing"), (float("nan"), "found NaN or infinity")):
        values = table["unrelated"].to_pylist()
        values[7] = gap
        parquet.write_table(table.set_column(2, "unrelated", pa.array(values, pa.float32(), from_pandas=False)), source)
        check(refusal(source, "--target", "outcome"), NonFiniteInput, "Column 'unrelated': ")
        check(refusal(source, "--target", "outcome"), NonFiniteInput, text)
