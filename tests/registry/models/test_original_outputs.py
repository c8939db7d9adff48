"""The table of the original's outputs: it comes back as it was, without what was removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oubli.registry.errors import DigestMismatch
from oubli.registry.models import tags
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.models.original_outputs import OutputTable, load_outputs, read_outputs, store_outputs, write_outputs

TABLE = OutputTable(("a", "b", "c"), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), ("v",), torch.ones(1, 2))


def version(**own: str) -> RegisteredVersion:
    return RegisteredVersion("m", "2", None, own, "")


def same(one: OutputTable | None, other: OutputTable) -> bool:
    return (
        one is not None
        and (one.retained_ids, one.held_out_ids) == (other.retained_ids, other.held_out_ids)
        and torch.equal(one.retained, other.retained)
        and torch.equal(one.held_out, other.held_out)
    )


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_comes_back_as_it_was(tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    retained, held_out = (torch.randn(count, *shape, generator=random, dtype=dtype) for count in (3, 2))
    table = OutputTable(("a", "b", "c"), retained, ("v", "w"), held_out)
    write_outputs(table, tmp_path / "outputs.parquet")
    read = read_outputs(tmp_path / "outputs.parquet")
    assert same(read, table)
    assert read.retained.dtype is dtype


def test_rows_of_what_is_removed_are_dropped() -> None:
    kept = TABLE.without({"b", "elsewhere"})
    assert same(kept, replace(TABLE, retained_ids=("a", "c"), retained=TABLE.retained[[0, 2]]))


def test_a_version_finds_its_own(tmp_path: Path) -> None:
    stored = store_outputs(str(tmp_path), TABLE)
    assert store_outputs(str(tmp_path), TABLE) == stored
    assert same(load_outputs(version(**stored)), TABLE)
    assert load_outputs(version()) is None
    Path(stored[tags.OUTPUTS]).unlink()
    assert load_outputs(version(**stored)) is None


def test_an_altered_table_is_refused(tmp_path: Path) -> None:
    stored = store_outputs(str(tmp_path), TABLE)
    write_outputs(TABLE.without({"a"}), Path(stored[tags.OUTPUTS]))
    with pytest.raises(DigestMismatch, match="outputs of m/2"):
        load_outputs(version(**stored))
