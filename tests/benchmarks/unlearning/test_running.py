from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.unlearning.cases import TimeLimitReached, time_limit
from benchmarks.unlearning.store import CaseStore

ROOT = Path(__file__).parents[3]


def test_the_store_forgets_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "cases.jsonl"
    store = CaseStore(path)
    store.add({"key": "a", "seconds": 1.0})
    store.add({"key": "b", "seconds": 2.0})
    path.write_text(path.read_text(encoding="utf-8")[:-8], encoding="utf-8")
    again = CaseStore(path)
    assert "a" in again
    assert "b" not in again
    again.add({"key": "b", "seconds": 3.0})
    assert CaseStore(path).get("b") == {"key": "b", "seconds": 3.0}


def test_a_case_that_takes_too_long_is_broken_off():
    started = time.perf_counter()
    with pytest.raises(TimeLimitReached), time_limit(0.1):
        time.sleep(5)
    assert time.perf_counter() - started < 4


def test_a_time_limit_leaves_another_s_timer_running():
    before = signal.getitimer(signal.ITIMER_REAL)[0]
    handler = signal.getsignal(signal.SIGALRM)
    with time_limit(100.0):
        pass
    after = signal.getitimer(signal.ITIMER_REAL)[0]
    assert signal.getsignal(signal.SIGALRM) is handler
    assert (after == 0) == (before == 0)
    assert after <= before


def quick(folder: Path, *options: str) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.unlearning", "--quick", *options, "--folder", str(folder)]
    files = ["--output", str(folder / "results.json"), "--page", str(folder / "page.md"), "--plots", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OUBLI_DATA": str(folder / "nothing here")}
    done = subprocess.run([*command, *files], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    # 1 is a missed bar, or a crash: only the first writes results.
    assert (folder / "results.json").is_file(), done.stderr
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert done.returncode == (1 if results["missed_bars"] else 0), done.stdout
    return results


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_quick_run_measures_every_part_and_goes_on_where_it_stopped(tmp_path):
    results = quick(tmp_path)
    cases = results["cases"]
    assert {one["part"] for one in cases} == {"convex", "networks", "determinism", "blanket", "cost"}
    convex = [one for one in cases if one["strategy"] == "two_steps"]
    assert len(convex) == 2
    assert all(one["distance"] < 1e-3 and one["gradient_ratio"] < 1e-3 for one in convex)
    networks = {one["strategy"] for one in cases if one["part"] == "networks"}
    assert {"nothing", "l_foci", "random", "full_ekfac", "full_finite_difference", "one_at_a_time"} <= networks
    images = [one for one in cases if (one["part"], one["problem"]) == ("networks", "digits-cnn")]
    blocks = {one["strategy"]: one.get("block_parameters") for one in images}
    assert blocks["random"] <= blocks["l_foci"]
    assert all(one["same_bits"] for one in cases if one["part"] == "determinism")
    assert "### digits-cnn" in (tmp_path / "page.md").read_text(encoding="utf-8")
    assert len(list(tmp_path.glob("unlearning-*.svg"))) == 4
    # One case was lost: it alone is run again, and everything else is as it was.
    path = tmp_path / "cases.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    lost = next(line for line in lines if json.loads(line)["strategy"] == "two_steps")
    path.write_text("".join(f"{line}\n" for line in lines if line != lost), encoding="utf-8")
    again = quick(tmp_path, "--only", "convex")
    assert path.read_text(encoding="utf-8").splitlines()[:-1] == [line for line in lines if line != lost]
    found = next(one for one in again["cases"] if one["key"] == json.loads(lost)["key"])
    assert found["weights"] == json.loads(lost)["weights"]
