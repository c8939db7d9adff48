"""The directives that the reference is made of.

`fields PATH` is a table of a model's fields. With `:environment: OUBLI_` they are named as the variables that set them.
`command-line common` shows the options that all commands share, `command-line commands` each command below a heading.
`public-names PACKAGE ROOM` shows what a package exports from one of its rooms; the build warns of an exported name that
no page shows.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from tools.command_line import pages
from tools.fields import markdown_table, rows
from tools.public_names import autodoc, exported, room_of

_log = logging.getLogger(__name__)
_shown: dict[str, set[str]] = {}


class Fields(SphinxDirective):
    """A table of the fields of a pydantic model or a dataclass."""

    required_arguments = 1
    option_spec: ClassVar = {"environment": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        model, prefix = getattr(import_module(module), name), self.options.get("environment")
        found = [row if prefix is None else row._replace(name=prefix + row.name.upper()) for row in rows(model)]
        cells = [(f"`{row.name}`", *row[1:]) for row in found]
        title = f"**`{name}`**\n\n" if prefix is None else ""
        return self.parse_text_to_nodes(title + markdown_table(("name", "value", "default", "meaning"), cells))


class CommandLine(SphinxDirective):
    """The options that all commands share, or the commands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from oubli.cli.main import app

        common, *commands = pages("oubli", app)
        # MyST puts headings into the page at once, before what a directive returns: hence one directive for each.
        if self.arguments[0] == "common":
            return self.parse_text_to_nodes(common)
        return self.parse_text_to_nodes("\n\n".join(commands), allow_section_headings=True)


class PublicNames(SphinxDirective):
    """What a package exports from one of its rooms."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        package, room = self.arguments
        chosen = {name: value for name, value in exported(package).items() if room_of(package, name, value) == room}
        _shown.setdefault(package, set()).update(chosen)
        if not chosen:
            return []
        blocks = (autodoc(package, name, value) for name, value in chosen.items())
        return self.parse_text_to_nodes("````{eval-rst}\n" + "\n\n".join(blocks) + "\n````")


def _check(_app: Any, _env: Any) -> None:
    for package, shown in _shown.items():
        if missing := sorted(set(exported(package)) - shown):
            _log.warning("%s exports what no page shows: %s", package, ", ".join(missing))


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("fields", Fields)
    app.add_directive("command-line", CommandLine)
    app.add_directive("public-names", PublicNames)
    app.connect("env-updated", _check)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
