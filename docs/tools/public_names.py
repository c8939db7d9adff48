"""The directive `public-names`: the names that a package exports from one of its rooms, from their docstrings.

    ```{public-names} oubli.components removal
    ```

shows what `oubli.components.__all__` takes from `oubli.components.removal`. The build warns of an exported name that
no page shows.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

_log = logging.getLogger(__name__)
_shown: dict[str, set[str]] = {}


def exported(package: str) -> dict[str, Any]:
    """The names that a package exports, in its own order, with what they name. Its submodules do not count."""
    module = import_module(package)
    named = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return {name: value for name, value in named.items() if not inspect.ismodule(value)}


def room_of(package: str, name: str, value: Any) -> str:
    """The room below `package` that a name is defined in."""
    home = getattr(value, "__module__", None) or type(value).__module__
    return home.removeprefix(f"{package}.").split(".")[0] if home.startswith(f"{package}.") else name


class PublicNames(SphinxDirective):
    """See the module."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        package, room = self.arguments
        chosen = {name: value for name, value in exported(package).items() if room_of(package, name, value) == room}
        _shown.setdefault(package, set()).update(chosen)
        blocks = [_block(package, name, value) for name, value in chosen.items()]
        if not blocks:
            return []
        return self.parse_text_to_nodes("````{eval-rst}\n" + "\n\n".join(blocks) + "\n````")


def _block(package: str, name: str, value: Any) -> str:
    if inspect.isclass(value):
        return f".. autoclass:: {package}.{name}\n   :members:"
    if callable(value):
        return f".. autofunction:: {package}.{name}"
    return f".. autodata:: {package}.{name}"


def _check(_app: Any, _env: Any) -> None:
    for package, shown in _shown.items():
        if missing := sorted(set(exported(package)) - shown):
            _log.warning("%s exports what no page shows: %s", package, ", ".join(missing))


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.connect("env-updated", _check)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
