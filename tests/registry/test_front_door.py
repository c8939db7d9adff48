"""What `oubli.registry` offers is there, and costs nothing until it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import oubli.registry


@pytest.mark.parametrize("name", oubli.registry.__all__)
def test_each_name_is_the_one_that_its_module_defines(name: str) -> None:
    assert getattr(oubli.registry, name).__name__ == name
    assert name in dir(oubli.registry)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(oubli.registry.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imports = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imports == {name: f"oubli.registry.{module}" for name, module in oubli.registry._MODULES.items()}
    assert sorted(imports) == sorted(oubli.registry.__all__)


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        oubli.registry.nothing  # noqa: B018


def test_importing_it_imports_no_service() -> None:
    program = "import sys, oubli.registry; print(sorted({'mlflow', 'torch', 'boto3', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
