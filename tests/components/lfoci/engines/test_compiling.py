"""Where compiled kernels are kept. What they compute is tested through the selection."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import oubli
import oubli.components
from oubli.components.lfoci.engines import compiling, simd, sorting

PROGRAM = """
import numpy as np
from oubli.components.lfoci.engines import sorting

keys = np.random.default_rng(0).random((50, 8))
expected = np.sort(keys, axis=0)
sorting.merge_exchange(keys)
assert (keys == expected).all()
print(sorting.__file__)
"""


@pytest.fixture
def unwritable_install(tmp_path: Path) -> Path:
    """A copy of the package in whose folders nothing can be cached, whoever runs the test."""
    copy = tmp_path / "install" / "oubli" / "components"
    shutil.copytree(Path(oubli.components.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(oubli.__file__, copy.parent)
    (copy / "lfoci" / "engines" / "__pycache__").write_text("a file where a folder is wanted")
    return copy.parent.parent


def run(install: Path, **variables: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=kept | {"PYTHONPATH": str(install), **variables},
        cwd=install,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(install))


@pytest.mark.slow
def test_a_read_only_installation_caches_in_the_users_folder(unwritable_install: Path, tmp_path: Path) -> None:
    run(unwritable_install, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").rglob("*merge_exchange*.nbc"))


@pytest.mark.slow
def test_it_runs_where_nothing_can_be_cached(unwritable_install: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    run(unwritable_install, XDG_CACHE_HOME=str(blocked), HOME=str(blocked))


def test_a_change_of_what_is_compiled_in_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(number: float) -> float:
        return 2 * number

    def name() -> str:
        return compiling.compiled_with(simd, sorting)(double).py_func.__qualname__

    before, read = name(), compiling.inspect.getsource
    assert name() == before
    monkeypatch.setattr(compiling.inspect, "getsource", lambda part: read(part) + ("#" if part is sorting else ""))
    assert name() != before
