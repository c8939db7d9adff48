"""What the original model says on samples that stay, kept with the versions that removals by matching made from it.

    <store>/outputs/<sha256>.parquet      sample_id, split (train or held_out), outputs (one list a row)

Matching holds a model to the original's outputs on retained samples, and calibrates a surrogate to them on held-out
ones, in a chain of removals as in the first. With the table the original's weights can be retired. Each version's table
lacks the rows that it removed; older ones go with the versions that they belong to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from oubli.registry.models import tags
from oubli.registry.models.kept_files import KeptFile
from oubli.registry.storage.scratch import temporary_folder

if TYPE_CHECKING:
    from oubli.registry.models.model_registry import RegisteredVersion

_FILE = KeptFile(
    "table of the original model's outputs",
    "outputs",
    tags.OUTPUTS,
    tags.OUTPUTS_SHA256,
    without_it="outputs are then computed from what weights are left",
)
_SHAPE = b"shape"
_TRAIN, _HELD_OUT = "train", "held_out"


@dataclass(frozen=True)
class OutputTable:
    """Raw outputs by sample id.

    Attributes:
        retained_ids: Of r training samples.
        retained: (r, ...).
        held_out_ids: Of k samples that were never in training.
        held_out: (k, ...).
    """

    retained_ids: tuple[str, ...] = field(repr=False)
    retained: Tensor = field(repr=False)
    held_out_ids: tuple[str, ...] = field(repr=False)
    held_out: Tensor = field(repr=False)

    def without(self, removed: Iterable[str]) -> OutputTable:
        """The table without the rows of removed samples."""
        dropped = frozenset(removed)
        staying = [position for position, sample in enumerate(self.retained_ids) if sample not in dropped]
        return OutputTable(
            tuple(self.retained_ids[position] for position in staying),
            self.retained[staying],
            self.held_out_ids,
            self.held_out,
        )


def write_outputs(table: OutputTable, path: Path) -> None:
    """Write a table as Parquet; its bytes depend on its content alone."""
    outputs = torch.cat([table.retained, table.held_out])
    columns = {
        "sample_id": pa.array([*table.retained_ids, *table.held_out_ids], pa.string()),
        "split": pa.array([_TRAIN] * len(table.retained_ids) + [_HELD_OUT] * len(table.held_out_ids)),
        "outputs": pa.array(list(outputs.reshape(len(outputs), -1).cpu().numpy())),
    }
    shape = json.dumps(list(outputs.shape[1:])).encode()
    pq.write_table(pa.table(columns).replace_schema_metadata({_SHAPE: shape}), path, compression="zstd")


def read_outputs(path: Path) -> OutputTable:
    """The table that `write_outputs` wrote."""
    rows = pq.read_table(path)
    shape = json.loads(rows.schema.metadata[_SHAPE])
    values = rows.column("outputs").combine_chunks().flatten().to_numpy()
    outputs = torch.from_numpy(np.array(values)).reshape(len(rows), *shape)
    ids, trained = rows.column("sample_id").to_pylist(), rows.column("split").to_pylist().count(_TRAIN)
    return OutputTable(tuple(ids[:trained]), outputs[:trained], tuple(ids[trained:]), outputs[trained:])


def store_outputs(store_root: str, table: OutputTable) -> dict[str, str]:
    """Put a table on the store.

    Returns:
        The version tags that point to it.

    Raises:
        StoreError: The store cannot be written.
    """
    with temporary_folder() as folder:
        path = folder / "outputs.parquet"
        write_outputs(table, path)
        return _FILE.store(store_root, path)


def load_outputs(version: RegisteredVersion) -> OutputTable | None:
    """The table of a version.

    Returns:
        None where the version has none, or where it was deleted.

    Raises:
        DigestMismatch: The bytes are not those that were registered.
    """
    with _FILE.opened(version) as path:
        return None if path is None else read_outputs(path)
