"""Dependencies point one way: cli -> flows -> registry -> components."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What a layer may import of Oubli, besides itself.
ALLOWED = {
    "components": set(),
    "registry": {"components"},
    "flows": {"components", "registry"},
    "infra": set(),
    "cli": {"components", "registry", "flows", "infra"},
    # The front door names the parts, and imports none before it is used.
    "oubli": {"components", "registry", "flows", "infra", "cli"},
}


def _imports(source: str, package: list[str]) -> Iterator[str]:
    """Every module that the source imports, anywhere in it, by absolute name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            # `from oubli import registry` imports a layer too.
            yield from (f"{start}.{alias.name}" for alias in node.names)


def _layers(source: str, package: list[str]) -> set[str]:
    named = (name.split(".") for name in _imports(source, package))
    return {parts[1] for parts in named if parts[0] == "oubli" and len(parts) > 1}


def _modules(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_the_layers_below_it(layer: str) -> None:
    modules = _modules(layer)
    assert modules
    for path in modules:
        package = ["oubli", *path.relative_to(ROOT).parent.parts]
        above = _layers(path.read_text(encoding="utf-8"), package) - ALLOWED[layer] - {layer}
        assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)}"


def test_every_layer_is_here() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")} | {"infra"}
    assert packages == set(ALLOWED)


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("*.py")), ids=lambda path: path.stem)
def test_flow_files_define_no_classes(path: Path) -> None:
    # Prefect loads a flow file by its path too: a class in it would then exist twice, unequal to itself.
    defined = [
        node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ClassDef)
    ]
    assert not defined


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import oubli.flows.unlearn", {"flows"}),
        ("from oubli.flows import unlearn as other", {"flows"}),
        ("from oubli import flows, registry", {"flows", "registry"}),
        ("def late():\n    from oubli.cli.tables import show", {"cli"}),
        ("from ..flows.unlearn import unlearn", {"flows"}),
        ("from . import digests", {"registry"}),
        ("import oubliette.flows\nfrom flows import x\nimport oubli", set()),
    ],
)
def test_no_way_to_import_is_overlooked(source: str, found: set[str]) -> None:
    assert _layers(source, ["oubli", "registry"]) == found
