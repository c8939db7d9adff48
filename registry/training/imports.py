"""Import strings "package.module:name", resolved only under allow-listed prefixes.

A training record is data, and importing a module runs its code: without the list, whoever can write a record could run
anything on a worker.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from oubli.registry.errors import FactoryNotAllowed

IMPORT_STRING = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def _allowed(module: str, prefixes: Sequence[str]) -> bool:
    """Whole dotted parts: 'oubli' allows 'oubli.flows' but not 'oublix'."""
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes if prefix)


def resolve(import_string: str, allowed_prefixes: Sequence[str]) -> Callable[..., Any]:
    """The callable that an import string names.

    Args:
        import_string: 'package.module:name'.
        allowed_prefixes: Packages that it may come from; whole dotted parts count.

    Raises:
        FactoryNotAllowed: The string is malformed, lies outside the prefixes, names nothing, or names something that is
            not callable or was defined outside the prefixes.
    """
    if not re.fullmatch(IMPORT_STRING, import_string):
        raise FactoryNotAllowed(
            f"{import_string!r} is not an import string.", remedy="Write it as 'package.module:name'."
        )
    module_name, _, name = import_string.partition(":")
    listed = ", ".join(allowed_prefixes) or "nothing"
    remedy = "Add its package to OUBLI_FACTORY_PREFIXES (comma-separated) if you trust its code."
    if not _allowed(module_name, allowed_prefixes):
        raise FactoryNotAllowed(f"{import_string!r} is outside the allowed prefixes ({listed}).", remedy=remedy)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise FactoryNotAllowed(
            f"Module {module_name!r} of {import_string!r} cannot be imported: {error}.",
            remedy="Install the package that holds it in this environment, or correct the training record.",
        ) from error
    target = getattr(module, name, None)
    if target is None:
        raise FactoryNotAllowed(
            f"Module {module_name!r} has no {name!r}.", remedy="Correct the name in the training record."
        )
    if not callable(target):
        raise FactoryNotAllowed(
            f"{import_string!r} is {type(target).__name__}, not callable.", remedy="Name a function or a class."
        )
    # An allowed module may itself have imported, say, subprocess.run: what counts is where the callable was defined.
    home = getattr(target, "__module__", None) or ""
    if not _allowed(home, allowed_prefixes):
        raise FactoryNotAllowed(
            f"{import_string!r} was defined in {home!r}, outside the allowed prefixes ({listed}).", remedy=remedy
        )
    return target  # type: ignore[no-any-return]
