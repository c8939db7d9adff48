"""How a person names a version of a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oubli.components.errors import ConfigurationError
from oubli.registry.models.model_registry import parse_model


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("digits", ("digits", None, None)),
        ("digits@champion", ("digits", "champion", None)),
        ("digits/3", ("digits", None, "3")),
        ("a model #1", ("a model #1", None, None)),
        ("team.digits-cnn/12", ("team.digits-cnn", None, "12")),
    ],
)
def test_a_model_is_named_by_name_alias_or_version(spec: str, parsed: tuple[str, str | None, str | None]) -> None:
    assert parse_model(spec) == parsed


@pytest.mark.parametrize(
    "spec", ["", "@", "/", "@champion", "/3", "digits@", "digits/", "digits/one", "digits/-1", "digits/3@champion",
             "digits@champion/3", "a/b/3", "digits@a@b"],
)  # fmt: skip
def test_anything_else_names_no_model(spec: str) -> None:
    with pytest.raises(ConfigurationError, match="does not name a registered model") as caught:
        parse_model(spec)
    assert repr(spec) in caught.value.problem
    assert "NAME@alias" in caught.value.remedy


plain = st.text(alphabet=st.characters(exclude_characters="@/"), min_size=1)


@given(plain, plain, st.integers(min_value=1))
def test_what_is_written_is_what_is_read(name: str, alias: str, version: int) -> None:
    assert parse_model(name) == (name, None, None)
    assert parse_model(f"{name}@{alias}") == (name, alias, None)
    assert parse_model(f"{name}/{version}") == (name, None, str(version))
