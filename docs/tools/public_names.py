"""The names that a package exports, by the room that they are defined in."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any


def exported(package: str) -> dict[str, Any]:
    """The names that a package exports, in its own order, with what they name. Its submodules do not count."""
    module = import_module(package)
    named = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return {name: value for name, value in named.items() if not inspect.ismodule(value)}


def room_of(package: str, name: str, value: Any) -> str:
    """The room below `package` that a name is defined in."""
    home = getattr(value, "__module__", None) or type(value).__module__
    return home.removeprefix(f"{package}.").split(".")[0] if home.startswith(f"{package}.") else name


def autodoc(package: str, name: str, value: Any) -> str:
    """The directive of autodoc that shows a name."""
    if inspect.isclass(value):
        return f".. autoclass:: {package}.{name}\n   :members:"
    if callable(value):
        return f".. autofunction:: {package}.{name}"
    return f".. autodata:: {package}.{name}"
