"""What `oubli.components` exports, and what importing it costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from oubli import components
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.reference.models import small_cnn

FOLDER = Path(components.__file__).parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", components.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(components, name)
    assert inspect.getdoc(value)
    # A dataclass without a docstring gets its signature as one.
    assert not inspect.getdoc(value).startswith(f"{name}(")
    # Where it is documented is where it comes from, not a module that imports it.
    assert value.__module__ == f"oubli.components.{components._HOME_OF[name]}"


def test_checkers_and_the_interpreter_see_the_same_names() -> None:
    (checked,) = (
        node
        for node in ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )
    seen = {
        alias.name: node.module.removeprefix("oubli.components.")
        for node in checked.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }
    assert seen == components._HOME_OF
    assert sorted(seen) == sorted(components.__all__)
    assert dir(components) == sorted(components.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"oubli\.components.*nothing"):
        _ = components.nothing
    assert importlib.import_module("oubli.components.errors").OubliError


@pytest.mark.parametrize("statement", ["import oubli", "import oubli.components", "import oubli.components.errors"])
def test_importing_loads_no_torch(statement: str) -> None:
    program = f"import sys; {statement}; print(*({{'torch', 'numpy', 'scipy', 'numba'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


def test_the_readmes_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    generator = torch.Generator().manual_seed(0)
    samples = Samples(torch.randn(60, 1, 8, 8, generator=generator), torch.randint(0, 3, (60,), generator=generator))
    removed, retained, test = (samples.select(torch.arange(*span)) for span in ((0, 2), (2, 40), (40, 60)))
    module = build_seeded(lambda: small_cnn(8, 8, 1, 3), 0)
    before = torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    exec(  # noqa: S102 - the example is the project's own
        compile(example, "README.md", "exec"),
        {"module": module, "removed": removed, "retained": retained, "test": test},
    )
    printed = capsys.readouterr().out
    assert "forget_loss" in printed
    assert "Verdict(" in printed
    assert not torch.equal(torch.nn.utils.parameters_to_vector(module.parameters()), before)


def test_the_readme_names_every_public_name_and_every_room() -> None:
    assert not [name for name in components.__all__ if f"`{name}`" not in README]
    rooms = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert not [room for room in rooms if f"`{room}/`" not in README]
