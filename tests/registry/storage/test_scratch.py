"""Scratch folders: a process's own, and nobody's once it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from oubli.registry.storage.scratch import scratch, sweep, temporary_folder

HOLD = """
import sys
from oubli.registry.storage.scratch import scratch
(scratch() / "download").write_text("large")
print(scratch(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that only this test's processes use."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    """A process with a scratch folder, and the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_swept(shared: Path) -> None:
    living, of_living = holder()
    killed, of_killed = holder()
    assert of_living.parent == of_killed.parent == shared
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert of_killed.exists()
    assert sweep() == 1
    assert not of_killed.exists()
    assert (of_living / "download").read_text() == "large"
    # An orderly end needs no sweep.
    living.communicate()
    assert not of_living.exists()
    assert sweep() == 0


def test_a_new_process_sweeps(shared: Path) -> None:
    killed, of_killed = holder()
    killed.kill()
    killed.communicate()
    other, _ = holder()
    other.communicate()
    assert not of_killed.exists()
    assert list(shared.iterdir()) == []


def test_other_folders_are_left_alone(shared: Path) -> None:
    (shared / "oubli-scratch-without-lock").mkdir()
    (shared / "other").mkdir()
    (shared / "other" / "lock").touch()
    assert sweep() == 0
    assert len(list(shared.iterdir())) == 2


def test_temporary_folders_are_in_the_scratch_folder() -> None:
    with temporary_folder() as folder:
        assert folder.parent == scratch()
        (folder / "file").touch()
    assert not folder.exists()
    assert scratch().exists()


SCRATCH_USER = """
import os, sys
from oubli.registry.storage.scratch import scratch
folder = scratch()
(folder / "a").write_text("x")
child = os.fork()
if not child:
    own = scratch()
    (own / "b").write_text("y")
    sys.exit(0 if own != folder else 1)
assert os.waitpid(child, 0)[1] == 0
assert (folder / "a").exists()
print(folder)
"""


def test_the_scratch_folder_goes_with_its_process(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRATCH_USER], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent == tmp_path
    assert list(tmp_path.iterdir()) == []
