"""The example of the README: a model and data that Oubli has never seen, registered and removed from."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import blobs
import pytest

from oubli.components.gate.limits import GateLimits
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.removals.unlearn_config import NothingToForget, UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "bring_your_own"
MAX_LINES = 25
MODULES = ("register", "wine_data", "wine_model")


def code_lines(path: Path) -> set[int]:
    """Numbers of the lines that hold code: not blank, no comment, not the module's docstring."""
    skipped = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
        tokenize.ENDMARKER,
    }  # fmt: skip
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in skipped]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    first = ast.parse(path.read_text(encoding="utf-8")).body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("example")
    for name in MODULES:
        shutil.copy(EXAMPLE / f"{name}.py", copy)
    return copy


@pytest.fixture(scope="module")
def registered(folder: Path, new_database: Callable[[Path], str]) -> Iterator[str]:
    """What `python register.py` printed. Its modules and settings are this process's too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("OUBLI_HOME", str(folder / "home"))
        patch.setenv("OUBLI_FACTORY_PREFIXES", "wine_model")
        patch.setenv("MLFLOW_TRACKING_URI", new_database(folder / "home"))
        done = subprocess.run(
            [sys.executable, "register.py"], env=os.environ, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield done.stdout.strip().splitlines()[-1]
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_it_is_registered_with_its_record(registered: str) -> None:
    assert registered == "wine/1"
    registry = ModelRegistry(Settings())
    version = registry.resolve("wine@champion")
    assert version.label == "wine/1"
    record = registry.training_record(version)
    assert record.factory.target == "wine_model:build"
    assert record.dataset.subject_column == "cellar"
    metrics = registry.client.get_run(version.run_id).data.metrics
    assert record.n == metrics["retained_samples"] == 142
    # Whoever follows the example sees a model that works.
    assert metrics["test_accuracy"] > 0.9


@pytest.mark.slow
def test_one_cellar_is_removed(registered: str) -> None:
    settings = Settings()
    removals = blobs.write_removals(settings, "cellar.csv", "subject_id,request_id\ncellar-04,letter-17\n")
    # Four wines beside eighteen held-out ones say little: what is tested here is the example, not the gate.
    limits = GateLimits(
        excess_divergence=50.0, excess_rank=0.5, excess_as_labelled=1.0, memory_left=1.0, overshoot=50.0
    )
    lenient = UnlearnConfig(limits=limits, nothing_to_forget=NothingToForget.UPDATE)
    outcome = blobs.remove(settings, "wine", [removals], lenient)
    assert (outcome.status, outcome.version) == (Status.REGISTERED, "2"), outcome.reasons
    registry = ModelRegistry(settings)
    version = registry.resolve("wine@challenger")
    assert version.label == "wine/2"
    # Six wines of a cellar, one or two of which are test rows.
    gone = removed_before(version)
    assert len(gone) == outcome.removed
    assert 4 <= outcome.removed <= 5
    assert set(gone) <= {f"wine-{number:03d}" for number in range(24, 30)}
    run = registry.client.get_run(version.run_id).data
    assert (run.params["request_ids"], run.params["parent_version"]) == ("letter-17", "1")
    assert run.metrics["retained_samples"] == 142 - outcome.removed
    assert store_for(settings.store_root).exists(version.tags["oubli.removed"])
    before, after = (registry.weights(registry.version("wine", number)) for number in ("1", "2"))
    assert any(not bool((before[name] == after[name]).all()) for name in before)


def test_it_takes_no_more_lines_than_promised() -> None:
    assert 0 < len(code_lines(EXAMPLE / "register.py")) <= MAX_LINES


def test_lines_are_counted_as_they_should_be(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        '"""Two lines\nof words."""\n\n# A comment.\nimport os  # one\n\nprint(\n    os.sep,\n    # no\n)\n"x"\n'
    )
    assert code_lines(path) == {5, 7, 8, 10, 11}


def test_the_readme_shows_the_very_file() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^## Bring your own model\n.*?^```python\n(?P<code>.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert found is not None, "README.md has no Python block below '## Bring your own model'"
    assert "\n## " not in readme[found.start() : found.start("code")][1:], "the block belongs to another section"
    source = (EXAMPLE / "register.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source), clean=False)
    code = source.removeprefix(f'"""{docstring}"""')
    assert found["code"].strip() in (source.strip(), code.strip())
