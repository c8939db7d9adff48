"""A small table of training data, and a plain reading of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oubli.registry.training.training_record import VectorDecoder

DECODER = VectorDecoder(columns=("a", "b"))
ROWS = 103


def table(rows: int = ROWS) -> pa.Table:
    """Every fifth row is for testing; every seventh belongs to nobody."""
    return pa.table(
        {
            "sample_id": [f"s{(row * 37) % rows:03}" for row in range(rows)],
            "a": np.arange(rows, dtype=np.float64),
            "b": -np.arange(rows, dtype=np.int64),
            "label": np.arange(rows, dtype=np.int32) % 10,
            "split": ["test" if row % 5 == 0 else "train" for row in range(rows)],
            "owner": [None if row % 7 == 0 else f"p{row % 4}" for row in range(rows)],
        }
    )


def small_groups(folder: Path, name: str, part: pa.Table) -> None:
    """Row groups of sizes that fit no batch size."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(part, folder / name, row_group_size=17)


def slow_rows(split: str) -> list[dict[str, object]]:
    """The split's rows, read plainly."""
    return [row for row in table().to_pylist() if row["split"] == split]
