"""The directive `fields`: a table of a pydantic model's fields, or a dataclass's, with the descriptions they carry.

    ```{fields} oubli.registry.settings.Settings
    :environment: OUBLI_
    ```

`environment` names the fields as the environment variables that set them.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from typing import Any, NamedTuple

from docutils import nodes
from docutils.parsers.rst import directives
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.util.docutils import SphinxDirective


class Row(NamedTuple):
    """One field, in Markdown."""

    name: str
    type: str
    default: str
    description: str


def load(path: str) -> Any:
    """The object at a dotted path, such as oubli.registry.settings.Settings."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def rows(model: type) -> Iterator[Row]:
    """A row for each field."""
    if issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            default = field.get_default(call_default_factory=True, validated_data={})
            bounds = ", ".join(filter(None, map(_bound, field.metadata)))
            yield Row(name, _shown(field.annotation, bounds), _value(default), field.description or "")
        return
    hints = typing.get_type_hints(model)
    for field in dataclasses.fields(model):
        bounds = ", ".join(
            f"{symbol} {field.metadata[name]}"
            for name, symbol in {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}.items()
            if name in field.metadata
        )
        default = PydanticUndefined if field.default is dataclasses.MISSING else field.default
        yield Row(field.name, _shown(hints[field.name], bounds), _value(default), field.metadata.get("description", ""))


def _bound(metadata: Any) -> str:
    for name, symbol in {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}.items():
        if (bound := getattr(metadata, name, None)) is not None:
            return f"{symbol} {bound}"
    return ""


def _shown(annotation: Any, bounds: str) -> str:
    text = _type(annotation)
    return f"{text}; {bounds}" if bounds else text


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        # An open field is told by its default.
        return " or ".join(dict.fromkeys(_type(each) for each in arguments if each is not type(None)))
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    plain = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}
    name = getattr(annotation, "__name__", str(annotation))
    return plain.get(
        annotation,
        f"[{name}](#fields-{name.lower()})"
        if dataclasses.is_dataclass(annotation) or (isinstance(annotation, type) and issubclass(annotation, BaseModel))
        else name.lower(),
    )


def _value(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None or default in ("", ()):
        return "empty"
    if isinstance(default, Enum):
        return f"`{default.value}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, BaseModel) or dataclasses.is_dataclass(default):
        return "its defaults"
    if isinstance(default, tuple):
        return f"`{', '.join(map(str, default))}`"
    return f"`{default}`"


def table(model: type, prefix: str | None = None) -> str:
    """The fields as a Markdown table."""
    lines = ["| name | value | default | meaning |", "|---|---|---|---|"]
    for row in rows(model):
        name = row.name if prefix is None else prefix + row.name.upper()
        cells = (f"`{name}`", row.type, row.default, _plain(row.description))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it stands: 'name' becomes code, and * is no emphasis."""
    text = re.sub(r"(?<![\w`])'([\w.:*-]+)'(?!\w)", r"`\1`", text)
    return "".join(
        part if part.startswith("`") else part.replace("*", "\\*").replace("<", "&lt;")
        for part in re.split(r"(`[^`]*`)", text)
    )


class Fields(SphinxDirective):
    """See the module."""

    required_arguments = 1
    option_spec: typing.ClassVar = {"environment": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        model = load(self.arguments[0])
        self.env.note_dependency(import_module(model.__module__).__file__ or "")
        text = f"(fields-{model.__name__.lower()})=\n\n{table(model, self.options.get('environment'))}"
        return self.parse_text_to_nodes(text)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("fields", Fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
