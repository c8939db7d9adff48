"""The directive `command-line`: every command with its arguments and options, read from the command itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def pages(program: str, app: typer.Typer) -> Iterator[str]:
    """Markdown for each command: how it is called, what it does, and its parameters."""
    group = typer.main.get_command(app)
    yield f"```text\n{program} [OPTIONS] COMMAND [ARGS]\n```\n\n{_table(group)}"
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        usage = " ".join([program, name, *_usage(command)])
        yield f"## {program} {name}\n\n```text\n{usage}\n```\n\n{_text(command.help)}\n\n{_table(command)}"


def _usage(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.human_readable_name.upper()
            yield name if parameter.required else f"[{name}]"
        elif parameter.required:
            yield f"{parameter.opts[0]} {_metavar(parameter)}"
    if any(parameter.param_type_name == "option" and not parameter.required for parameter in command.params):
        yield "[OPTIONS]"


def _table(command: Any) -> str:
    lines = ["| name | value | default | meaning |", "|---|---|---|---|"]
    for parameter in command.params:
        if parameter.name in ("help", "install_completion", "show_completion"):
            continue
        is_argument = parameter.param_type_name == "argument"
        names = [parameter.human_readable_name.upper()] if is_argument else list(parameter.opts)
        shown = ", ".join(f"`{name}`" for name in names)
        cells = (shown, _metavar(parameter), _default(parameter), (parameter.help or "").replace("|", "\\|"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else "It takes no options."


def _metavar(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return "flag"
    choices = getattr(parameter.type, "choices", None)
    if choices:
        return ", ".join(f"`{getattr(choice, 'value', choice)}`" for choice in choices)
    return str(parameter.type.name).upper()


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if getattr(parameter, "is_flag", False) or parameter.default in (None, (), []):
        return ""
    return f"`{getattr(parameter.default, 'value', parameter.default)}`"


def _text(help_text: str | None) -> str:
    return (help_text or "").replace("\b", "").strip()


class CommandLine(SphinxDirective):
    """See the module."""

    def run(self) -> list[nodes.Node]:
        from oubli.cli.main import app

        return self.parse_text_to_nodes("\n\n".join(pages("oubli", app)), allow_section_headings=True)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
