"""Draws docs/pictures/architecture.svg: the layers, their rooms, and who imports whom, as the source says.

    python docs/architecture.py [--check]

With --check nothing is written, and the exit status is 1 where the drawing no longer shows the source. Needs the
standard library alone.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRAWING = ROOT / "docs" / "pictures" / "architecture.svg"

LAYERS = {
    "cli": "the command oubli",
    "flows": "Prefect flows and the stages they sequence",
    "registry": "side effects: object storage, MLflow, removal sets",
    "components": "the numeric core: tensors in, tensors out",
}
# Imported from everywhere, so that their arrows would hide the others.
_EVERYWHERE = {"errors", "progress", "settings"}

_BOX_WIDTH, _BOX_HEIGHT, _COLUMN_GAP, _ROW_GAP = 112, 30, 84, 14
_BAND_LEFT, _BAND_TOP, _BAND_GAP, _TITLE_HEIGHT, _PADDING = 10, 10, 44, 34, 16

Arrows = dict[str, set[str]]


@dataclass(frozen=True)
class Box:
    """A room's place on the drawing, by its upper left corner."""

    name: str
    x: float
    y: float


def imports(path: Path) -> Iterator[str]:
    """Every module of Oubli that a file imports, anywhere in it, by its dotted name without 'oubli.'."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            # `from oubli.components import gate` imports a room as well.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("oubli.") for name in names if name.startswith("oubli."))


def rooms(layer: str, root: Path = ROOT) -> dict[str, list[Path]]:
    """The rooms of a layer, its folders and the modules beside them, each with its files."""
    found: dict[str, list[Path]] = {}
    for path in sorted((root / layer).rglob("*.py")):
        step = path.relative_to(root / layer).parts[0].removesuffix(".py")
        if step != "__init__":
            found.setdefault(step, []).append(path)
    return found


def arrows(layer: str, root: Path = ROOT) -> Arrows:
    """Which rooms of a layer each of its rooms imports."""
    inside = rooms(layer, root)
    found: Arrows = {}
    for room, paths in inside.items():
        steps = (name.split(".") for path in paths for name in imports(path))
        targets = {parts[1] for parts in steps if parts[0] == layer and len(parts) > 1}
        found[room] = (targets & inside.keys()) - {room}
    return found


def layer_arrows(root: Path = ROOT) -> Arrows:
    """Which layers each layer imports."""
    found: Arrows = {}
    for layer in LAYERS:
        named = {name.split(".")[0] for path in sorted((root / layer).rglob("*.py")) for name in imports(path)}
        found[layer] = (named & LAYERS.keys()) - {layer}
    return found


def reduced(graph: Arrows) -> Arrows:
    """The arrows that do not follow from others."""
    reach: Arrows = {}

    def reachable(room: str) -> set[str]:
        if room not in reach:
            reach[room] = set().union(*({target} | reachable(target) for target in graph[room]))
        return reach[room]

    return {
        room: {each for each in targets if not any(each in reachable(other) for other in targets - {each})}
        for room, targets in graph.items()
    }


def columns(graph: Arrows) -> dict[str, int]:
    """Each room's column: one further right than any room it imports."""
    found: dict[str, int] = {}

    def column(room: str) -> int:
        if room not in found:
            found[room] = 1 + max((column(target) for target in graph[room]), default=-1)
        return found[room]

    for room in graph:
        column(room)
    return found


def _places(graph: Arrows, top: float) -> tuple[list[Box], float]:
    """The boxes of one band, and the height that they take."""
    by_column: dict[int, list[str]] = {}
    for room, column in columns(graph).items():
        by_column.setdefault(column, []).append(room)
    tallest = max(len(names) for names in by_column.values())
    height = tallest * _BOX_HEIGHT + (tallest - 1) * _ROW_GAP
    boxes = []
    for column, names in sorted(by_column.items()):
        own = len(names) * _BOX_HEIGHT + (len(names) - 1) * _ROW_GAP
        y = top + (height - own) / 2
        for name in sorted(names):
            boxes.append(Box(name, _BAND_LEFT + _PADDING + column * (_BOX_WIDTH + _COLUMN_GAP), y))
            y += _BOX_HEIGHT + _ROW_GAP
    return boxes, height


def _in_rows(names: list[str], top: float, per_row: int) -> tuple[list[Box], float]:
    """Boxes without arrows, in rows."""
    boxes = [
        Box(
            name,
            _BAND_LEFT + _PADDING + (number % per_row) * (_BOX_WIDTH + _ROW_GAP),
            top + (number // per_row) * (_BOX_HEIGHT + _ROW_GAP),
        )
        for number, name in enumerate(names)
    ]
    rows = -(-len(names) // per_row)
    return boxes, rows * _BOX_HEIGHT + (rows - 1) * _ROW_GAP


def _curve(source: Box, target: Box) -> str:
    x1, y1 = source.x, source.y + _BOX_HEIGHT / 2
    x2, y2 = target.x + _BOX_WIDTH + 3, target.y + _BOX_HEIGHT / 2
    bend = min(60.0, (x1 - x2) / 2)
    return (
        f'<path d="M{x1:g},{y1:g} C{x1 - bend:g},{y1:g} {x2 + bend:g},{y2:g} {x2:g},{y2:g}" class="arrow" '
        f'marker-end="url(#head)"/>'
    )


def _box(box: Box) -> str:
    return (
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="5" class="room"/>'
        f'<text x="{box.x + _BOX_WIDTH / 2:g}" y="{box.y + _BOX_HEIGHT / 2 + 4:g}" class="name">'
        f"{escape(box.name)}</text>"
    )


def drawing(root: Path = ROOT) -> str:
    """The whole drawing as SVG."""
    graphs = {layer: arrows(layer, root) for layer in LAYERS}
    drawn = {
        layer: {room: targets - _EVERYWHERE for room, targets in graph.items() if room not in _EVERYWHERE}
        for layer, graph in graphs.items()
    }
    widest = max(max(columns(graph).values()) for layer, graph in drawn.items() if layer != "cli") + 1
    inner = widest * _BOX_WIDTH + (widest - 1) * _COLUMN_GAP
    width = inner + 2 * (_BAND_LEFT + _PADDING)
    parts: list[str] = []
    top = float(_BAND_TOP)
    for layer, title in LAYERS.items():
        graph = reduced(drawn[layer])
        start = top + _TITLE_HEIGHT
        if layer == "cli":
            boxes, height = _in_rows(sorted(graph), start, int((inner + _ROW_GAP) // (_BOX_WIDTH + _ROW_GAP)))
            graph = {room: set() for room in graph}
        else:
            boxes, height = _places(graph, start)
        by_name = {box.name: box for box in boxes}
        band = height + _TITLE_HEIGHT + _PADDING
        parts.append(
            f'<rect x="{_BAND_LEFT}" y="{top:g}" width="{width - 2 * _BAND_LEFT:g}" height="{band:g}" rx="8" '
            f'class="layer"/>'
        )
        shared = sorted(_EVERYWHERE & graphs[layer].keys())
        note = f"; {', '.join(shared)}: imported throughout" if shared else ""
        parts.append(
            f'<text x="{_BAND_LEFT + _PADDING}" y="{top + 21:g}" class="title">{layer}'
            f'<tspan class="note" dx="8">{escape(title + note)}</tspan></text>'
        )
        parts += [_curve(by_name[room], by_name[each]) for room in sorted(graph) for each in sorted(graph[room])]
        parts += [_box(box) for box in boxes]
        if layer != "components":
            x, y = width / 2, top + band
            parts.append(f'<path d="M{x:g},{y + 3:g} V{y + _BAND_GAP - 6:g}" class="down" marker-end="url(#head)"/>')
            parts.append(f'<text x="{x + 12:g}" y="{y + _BAND_GAP / 2 + 4:g}" class="note">imports</text>')
        top += band + _BAND_GAP
    return _document(width, top - _BAND_GAP + _BAND_TOP, parts)


def _document(width: float, height: float, parts: list[str]) -> str:
    style = (
        "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2d3a}"
        ".layer{fill:#f3f6f9;stroke:#c5d0da}.room{fill:#fff;stroke:#2f5d8c}"
        ".name{font-size:13px;text-anchor:middle}.title{font-size:15px;font-weight:600}"
        ".note{font-size:12px;font-weight:400;fill:#566674}"
        ".arrow{fill:none;stroke:#8aa4bd;stroke-width:1.3}.down{stroke:#2f5d8c;stroke-width:2}"
    )
    head = (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse" markerUnits="userSpaceOnUse">'
        '<path d="M0,0.5 L7.5,4 L0,7.5 z" fill="#557ea6"/></marker></defs>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" aria-label="The layers of Oubli, their rooms, and who imports whom">',
            f"<style>{style}</style>",
            head,
            *parts,
            "</svg>",
            "",
        ]
    )


def main() -> int:
    """Write the drawing, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the drawing is out of date")
    options = parser.parse_args()
    current = drawing()
    if not options.check:
        DRAWING.write_text(current, encoding="utf-8")
        return 0
    if DRAWING.is_file() and DRAWING.read_text(encoding="utf-8") == current:
        return 0
    sys.stderr.write(f"{DRAWING.relative_to(ROOT)} does not show the source: run python docs/architecture.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
