"""Compiling ahead: what is compiled, and that a later process compiles nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Runs a selection as `warm` does, and prints where the functions come from that numba compiled for it.
PROGRAM = """
import json
from pathlib import Path
from numba.core import event
from oubli.components.lfoci.warming import warm

class Listener(event.Listener):
    def on_start(self, each): compiled.append(Path(each.data["dispatcher"].py_func.__code__.co_filename).name)
    def on_end(self, each): pass

compiled = []
with event.install_listener("numba:compile", Listener()):
    warm()
print(json.dumps(compiled))
"""


def compiled(cache: Path) -> list[str]:
    """Files of the functions that a process with this cache compiles."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return list(json.loads(done.stdout))


@pytest.mark.slow
def test_a_later_process_compiles_nothing_and_the_first_none_of_numpys_algorithms(tmp_path: Path) -> None:
    first = compiled(tmp_path)
    assert {"sorting.py", "searching.py"} <= set(first)
    # Making an array, viewing it, and the least of two numbers. Sorting and formatting take longer than all kernels.
    assert set(first) <= {"sorting.py", "searching.py", "arrayobj.py", "builtins.py"}
    assert len(first) <= 30
    assert compiled(tmp_path) == []
