"""Every command with its arguments and options as Markdown, read from the functions behind it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import typer
from typer.models import ArgumentInfo, OptionInfo

from tools.fields import markdown_table, plain, value_of, values_of


class Parameter(NamedTuple):
    """An argument or option: how it is written, what it takes, and its help. required: it has no default."""

    names: tuple[str, ...]
    values: str
    default: str
    help: str
    is_argument: bool
    required: bool


def parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    """The parameters of a command, in its order."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        annotation, default = hints[name], parameter.default
        info = next((each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, _INFOS)), None)
        if isinstance(default, _INFOS):
            info, default = default, default.default
        required = default in (inspect.Parameter.empty, ...)
        is_argument = isinstance(info, ArgumentInfo)
        plainly = typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
        yield Parameter(
            names=_names(name, info, is_argument=is_argument),
            values="flag" if plainly is bool else values_of(plainly),
            default="required" if required else "" if plainly is bool else value_of(default),
            help=plain((info.help or "") if info is not None else ""),
            is_argument=is_argument,
            required=required,
        )


_INFOS = (ArgumentInfo, OptionInfo)


def _names(name: str, info: ArgumentInfo | OptionInfo | None, *, is_argument: bool) -> tuple[str, ...]:
    if is_argument:
        return (name.upper(),)
    # In an annotation, where a default has no place, Typer takes the first name for one.
    declared = [info.default, *(info.param_decls or ())] if info is not None else []
    named = tuple(each for each in declared if isinstance(each, str) and each.startswith("-"))
    return named or (f"--{name.replace('_', '-')}",)


def pages(program: str, app: typer.Typer) -> Iterator[str]:
    """Markdown: the options of every command, then each command with its usage, its help and its parameters."""
    common = app.registered_callback.callback if app.registered_callback is not None else None
    yield f"```text\n{program} [OPTIONS] COMMAND [ARGS]\n```\n\n" + (_table(common) if common is not None else "")
    for command in app.registered_commands:
        function = command.callback
        if function is None:
            continue
        name = command.name or function.__name__.replace("_", "-")
        usage = " ".join((program, name, *_usage(list(parameters(function)))))
        yield f"## {program} {name}\n\n```text\n{usage}\n```\n\n{_help(function)}\n\n{_table(function)}"


def _usage(found: list[Parameter]) -> Iterator[str]:
    for each in found:
        if each.is_argument:
            yield each.names[0] if each.required else f"[{each.names[0]}]"
        elif each.required:
            yield f"{each.names[0]} {each.names[0].removeprefix('--').upper()}"
    if any(not each.is_argument and not each.required for each in found):
        yield "[OPTIONS]"


def _table(function: Callable[..., Any]) -> str:
    rows = [
        (", ".join(f"`{n}`" for n in each.names), each.values, each.default, each.help) for each in parameters(function)
    ]
    return markdown_table(("name", "value", "default", "meaning"), rows) if rows else "It takes no options."


def _help(function: Callable[..., Any]) -> str:
    """The docstring; what follows "Example:" as code."""
    paragraphs = []
    for paragraph in inspect.getdoc(function).split("\n\n"):  # type: ignore[union-attr]
        before, found, example = paragraph.partition(": oubli ")
        is_example = found and before in ("Example", "Examples")
        if is_example:
            paragraphs.append(f"```sh\noubli {example}\n```")
        elif paragraph.startswith("oubli "):
            paragraphs.append(f"```sh\n{paragraph}\n```")
        else:
            paragraphs.append(plain(paragraph))
    return "\n\n".join(paragraphs)
