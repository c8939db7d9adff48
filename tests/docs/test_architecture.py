"""The drawing of the layers: it shows the source, and the script that draws it reads imports as they are."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def architecture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules["architecture"] = module
    spec.loader.exec_module(module)
    return module


def test_the_committed_drawing_shows_the_source(architecture: ModuleType) -> None:
    current = architecture.DRAWING.read_text(encoding="utf-8") == architecture.drawing()
    assert current, "run python docs/architecture.py"


def test_layers_point_one_way(architecture: ModuleType) -> None:
    below = architecture.layer_arrows()
    assert below["components"] == set()
    assert below["registry"] == {"components"}
    assert below["flows"] == {"registry", "components"}


def test_imports_are_found_wherever_they_stand(architecture: ModuleType, tmp_path: Path) -> None:
    layer = tmp_path / "components"
    (layer / "gate").mkdir(parents=True)
    (layer / "gate" / "rules.py").write_text("from oubli.components.model import losses\nimport torch\n")
    (layer / "gate" / "late.py").write_text("def f():\n    import oubli.components.progress\n")
    (layer / "model").mkdir()
    (layer / "model" / "losses.py").write_text("from oubli.components import progress\n")
    (layer / "progress.py").write_text("")
    assert architecture.arrows("components", tmp_path) == {
        "gate": {"model", "progress"},
        "model": {"progress"},
        "progress": set(),
    }


def test_arrows_that_follow_from_others_are_left_out(architecture: ModuleType) -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert architecture.reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert architecture.columns(graph) == {"a": 2, "b": 1, "c": 0}
