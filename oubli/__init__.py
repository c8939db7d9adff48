"""Oubli removes samples from registered torch models, measures what came of it, and says so.

Its parts load when they are first used, so that `import oubli` is quick:

    oubli.components    the numeric core: L-FOCI, the removal update, its validation
    oubli.registry      object storage, removal sets, training records, MLflow
    oubli.flows         Prefect flows that sequence them
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oubli import cli, components, flows, infra, registry

_PARTS = ("cli", "components", "flows", "infra", "registry")

__all__ = ["__version__", "cli", "components", "flows", "infra", "registry"]


def __getattr__(name: str) -> ModuleType | str:
    if name in _PARTS:
        return import_module(f"oubli.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("oubli")
    raise AttributeError(f"module 'oubli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
