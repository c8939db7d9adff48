"""Dependencies point one way: cli -> flows -> registry -> components, and likewise between the rooms of a layer.

A room is a folder of a layer, or a module that stands beside the folders.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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

# What a room may import of its layer's other rooms, besides `BASE`.
BASE = {"errors", "progress", "settings"}
ROOMS: dict[str, dict[str, set[str]]] = {
    "components": {
        "errors": set(),
        "progress": set(),
        "model": set(),
        "lfoci": set(),
        "blocks": {"model", "lfoci"},
        "solvers": set(),
        "curvature": {"model", "solvers"},
        "removal": {"model", "solvers", "curvature"},
        "measures": {"model"},
        "gate": {"model", "measures", "curvature", "removal"},
        "reference": {"model", "lfoci", "blocks", "solvers", "curvature", "removal", "measures"},
    },
    "registry": {
        "errors": set(),
        "settings": set(),
        "storage": set(),
        "training": {"storage"},
        "models": {"storage", "training"},
        "removals": {"storage", "training", "models"},
    },
    "flows": {
        "runtime": set(),
        "job": set(),
        "training": set(),
        "updates": {"job"},
        "stages": {"job", "updates"},
        "train": {"runtime", "training"},
        "unlearn": {"runtime", "job", "stages", "training"},
        "compliance": {"runtime", "job", "stages", "unlearn"},
    },
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


def _package(path: Path) -> list[str]:
    return ["oubli", *path.relative_to(ROOT).parent.parts]


def _room(path: Path, layer: str) -> str:
    return path.relative_to(ROOT / layer).parts[0].removesuffix(".py")


def _rooms_imported(source: str, package: list[str], layer: str) -> set[str]:
    named = (name.split(".") for name in _imports(source, package))
    return {parts[2] for parts in named if parts[:2] == ["oubli", layer] and len(parts) > 2} & set(ROOMS[layer])


def _graph() -> dict[str, set[str]]:
    """Every module of Oubli, and the modules of Oubli that it imports, anywhere in it."""
    paths = {
        ".".join([*_package(path), path.stem]).removesuffix(".__init__"): path
        for layer in ALLOWED.keys() - {"oubli"}
        for path in _modules(layer)
    }
    # As the front door, it names what loads on its first use: its arrows run the other way.
    del paths["oubli.components"]
    graph = {}
    for module, path in paths.items():
        named = _imports(path.read_text(encoding="utf-8"), _package(path))
        # `from a.b import c` names a.b.c, which is a module of its own or a name in a.b.
        graph[module] = {name if name in paths else name.rpartition(".")[0] for name in named} & paths.keys()
    return graph


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_the_layers_below_it(layer: str) -> None:
    modules = _modules(layer)
    assert modules
    for path in modules:
        above = _layers(path.read_text(encoding="utf-8"), _package(path)) - ALLOWED[layer] - {layer}
        assert not above, f"{path.relative_to(ROOT)} imports {sorted(above)}"


@pytest.mark.parametrize(("layer", "room"), [(layer, room) for layer, rooms in ROOMS.items() for room in rooms])
def test_a_room_imports_only_the_rooms_before_it(layer: str, room: str) -> None:
    paths = [path for path in _modules(layer) if _room(path, layer) == room]
    assert paths
    for path in paths:
        imported = _rooms_imported(path.read_text(encoding="utf-8"), _package(path), layer)
        wrong = imported - ROOMS[layer][room] - BASE - {room}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("layer", ROOMS)
def test_every_room_is_in_the_table_and_after_what_it_imports(layer: str) -> None:
    assert {_room(path, layer) for path in _modules(layer)} - {"__init__"} == set(ROOMS[layer])
    order = list(ROOMS[layer])
    for room, allowed in ROOMS[layer].items():
        assert allowed <= set(order[: order.index(room)]), room


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = _graph()
    assert "oubli.components.blocks.union" in graph["oubli.components.blocks.blanket"]
    assert "oubli.components.lfoci.foci" in graph["oubli.components.lfoci"]
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


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


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from oubli.components.model.losses import mse", {"model"}),
        ("from oubli.components import measures, gate", {"measures", "gate"}),
        ("def late():\n    import oubli.components.removal.newton", {"removal"}),
        ("from ..gate import verdict", {"gate"}),
        ("from oubli.components import Objective\nfrom oubli.registry.models import lineage", set()),
    ],
)
def test_no_room_is_overlooked(source: str, found: set[str]) -> None:
    assert _rooms_imported(source, ["oubli", "components", "curvature"], "components") == found
