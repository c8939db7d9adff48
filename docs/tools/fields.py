"""The fields of a pydantic model, or of a dataclass, as Markdown, with the descriptions that they carry."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
_PLAIN = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}


class Row(NamedTuple):
    """One field, in Markdown."""

    name: str
    values: str
    default: str
    meaning: str


def rows(model: type) -> Iterator[Row]:
    """A row for each field."""
    if issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            bounds = {key: getattr(each, key) for each in field.metadata for key in _BOUNDS if hasattr(each, key)}
            default = field.get_default(call_default_factory=True, validated_data={})
            yield Row(name, _bounded(field.annotation, bounds), value_of(default), plain(field.description or ""))
        return
    hints = typing.get_type_hints(model)
    for each in dataclasses.fields(model):
        default = PydanticUndefined if each.default is dataclasses.MISSING else each.default
        meaning = plain(each.metadata.get("description", ""))
        yield Row(each.name, _bounded(hints[each.name], each.metadata), value_of(default), meaning)


def _bounded(annotation: Any, bounds: Mapping[str, Any]) -> str:
    shown = [f"{symbol} {bounds[name]}" for name, symbol in _BOUNDS.items() if bounds.get(name) is not None]
    return "; ".join([values_of(annotation), ", ".join(shown)]) if shown else values_of(annotation)


def values_of(annotation: Any) -> str:
    """What a type takes, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return values_of(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        # That a field may be empty is told by its default.
        parts = dict.fromkeys(values_of(each) for each in arguments if each is not type(None))
        return ", ".join(parts) if all(part.startswith("`") for part in parts) else " or ".join(parts)
    if origin in (tuple, list):
        return f"list of {values_of(arguments[0])}"
    if origin is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    name = getattr(annotation, "__name__", str(annotation))
    return _PLAIN.get(annotation, f"`{name}`" if _has_fields(annotation) else name.lower())


def _has_fields(annotation: Any) -> bool:
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation))


def value_of(default: Any) -> str:
    """A default, in words."""
    if default is PydanticUndefined:
        return "required"
    if default is None or default in ("", (), {}):
        return "empty"
    if _has_fields(type(default)):
        return "its defaults"
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, bool):
        default = str(default).lower()
    if isinstance(default, tuple):
        default = ", ".join(map(str, default))
    if isinstance(default, float):
        default = f"{default:.6g}"
    return f"`{default}`"


def plain(text: str) -> str:
    """Text that Markdown shows as it stands: 'name' becomes code, and a star is no emphasis."""
    text = re.sub(r"(?<![\w`'])'([^\s',]+)'(?!\w)", r"`\1`", text)
    return "".join(
        part if part.startswith("`") else part.replace("*", "\\*").replace("<", "&lt;").replace("[", "\\[")
        for part in re.split(r"(`[^`]*`)", text)
    )


def markdown_table(headings: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *cells]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
