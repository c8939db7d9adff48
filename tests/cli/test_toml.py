"""TOML files: what the command line says over them, and errors that name the file and the field."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from oubli.cli.toml import read_toml
from oubli.components.blocks.choosing import BlockChoice
from oubli.components.errors import ConfigurationError
from oubli.components.gate.limits import GateLimits
from oubli.registry.removals.unlearn_config import UnlearnConfig


class Inner(BaseModel):
    width: int = Field(gt=0)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    inner: Inner
    rate: float = 0.5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.toml"


def test_the_command_line_stands_over_the_file(path: Path) -> None:
    path.write_text('steps = 3\nselection = "full"\n')
    found = read_toml(path, UnlearnConfig, overrides={"selection": "l_foci", "seed": 7})
    assert found == UnlearnConfig(steps=3, selection=BlockChoice.L_FOCI, seed=7)
    assert read_toml(path, UnlearnConfig) == UnlearnConfig(steps=3, selection=BlockChoice.FULL)


def test_tables_and_other_alphabets(path: Path) -> None:
    path.write_text('name = "né"\n[inner]\nwidth = 3\n', encoding="utf-8")
    assert read_toml(path, Outer) == Outer(name="né", inner=Inner(width=3))


def test_an_empty_file_is_all_defaults(path: Path) -> None:
    path.write_text("# nothing to say\n")
    assert read_toml(path, UnlearnConfig) == UnlearnConfig()


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"There is no file .*some\.toml") as caught:
        read_toml(path, UnlearnConfig)
    assert caught.value.remedy


def test_limits_are_a_table(path: Path) -> None:
    path.write_text("steps = 1\n[limits]\naccuracy_drop = 0.05\n")
    assert read_toml(path, UnlearnConfig) == UnlearnConfig(steps=1, limits=GateLimits(accuracy_drop=0.05))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accuracy_drop = 2", "limits.accuracy_drop: Input should be less than or equal to 1"),
        ("accuracy_drop = nan", "limits.accuracy_drop: Input should be a finite number"),
        ("distance = 0", "limits.distance: Input should be greater than 0"),
        ('loss_rise = "much"', "limits.loss_rise: Input should be a valid number"),
        ("acuracy_drop = 0.1", "limits.acuracy_drop: "),
    ],
)
def test_a_wrong_limit_is_named(path: Path, text: str, problem: str) -> None:
    path.write_text(f"[limits]\n{text}\n")
    with pytest.raises(ConfigurationError) as caught:
        read_toml(path, UnlearnConfig)
    assert problem in caught.value.problem


def test_a_wrong_choice_is_named_with_those_there_are(path: Path) -> None:
    path.write_text('selection = "best"\n')
    with pytest.raises(ConfigurationError, match="selection: Input should be one of auto, l_foci, ") as caught:
        read_toml(path, UnlearnConfig)
    assert "BlockChoice" not in caught.value.problem


def test_settings_that_contradict_each_other(path: Path) -> None:
    path.write_text('selection = "random"\n')
    with pytest.raises(ConfigurationError, match="together: selection 'random' needs a block_size"):
        read_toml(path, UnlearnConfig)


@pytest.mark.parametrize("data", [b"steps = ", b"steps 3", b"\xff\xfe", b"a = 1\na = 2"])
def test_what_is_no_toml(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"some\.toml is not TOML"):
        read_toml(path, UnlearnConfig)


def test_a_folder_is_no_file(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigurationError, match=r"some\.toml"):
        read_toml(path, UnlearnConfig)


def test_every_wrong_field_is_named(path: Path) -> None:
    path.write_text('rate = "fast"\nwidth = 1\n[inner]\nwidth = 0\n')
    with pytest.raises(ConfigurationError, match=r"some\.toml does not fit") as caught:
        read_toml(path, Outer)
    for field in ("name: Field required", "inner.width: ", "rate: ", "width: Extra inputs"):
        assert field in caught.value.problem
    assert "pydantic.dev" not in caught.value.problem
    assert caught.value.remedy
