"""What a command costs before it does its work, and the first selection: seconds of a processor, user and system.

A convex model is trained in a folder of its own, with MLflow and the store embedded; then each command runs by itself,
and the least of three runs counts. Of a selection only the call itself counts, the first in its process: with an empty
cache of compiled kernels, and in a later process. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.report import Case, print_json, print_table, wants_json

RUNS = 3
ROWS = {"cpu_seconds": "CPU seconds", "bar": "at most", "met": "bar met"}

_MODEL = "startup"
_TRAIN = f"""
import numpy as np, pyarrow as pa
from oubli.flows.training.train import train
from oubli.registry.settings import load_settings
from oubli.registry.storage.uris import join
from oubli.registry.training.train_spec import TrainSpec
from oubli.registry.training.training_record import FactoryReference, VectorDecoder
from oubli.registry.training.writing import write_training_data

settings, random = load_settings(), np.random.default_rng(0)
uri = join(settings.store_root, "data", "points.parquet")
points = random.normal(size=(1000, 20)).astype(np.float32)
write_training_data(pa.table({{
    "sample_id": [f"point-{{number}}" for number in range(1000)], "values": pa.array(list(points)),
    "label": pa.array(points[:, 0] > 0, pa.int32()), "split": ["test" if i % 5 == 0 else "train" for i in range(1000)],
}}), uri)
reference = "oubli.components.reference"
train(settings, TrainSpec(
    model="{_MODEL}", dataset_uri=uri, decoder=VectorDecoder(columns=("values",)), loss="cross_entropy", l2=1e-2,
    convex=True,
    factory=FactoryReference(
        target=f"{{reference}}.models:logistic_regression", kwargs={{"features": 20, "classes": 2}}
    ),
    retrain=FactoryReference(target=f"{{reference}}.training:fit_convex"),
))
"""
_SELECTION = """
import time, numpy as np
from oubli.components.lfoci.foci import l_foci
random = np.random.default_rng(0)
table = random.normal(size=(1000, 50))
response = table[:, 3] * table[:, 17]
started = time.process_time()
l_foci(table, response, generator=np.random.default_rng(0))
print(time.process_time() - started)
"""


def cases() -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "OUBLI_"))}
        environment |= {"OUBLI_HOME": str(home / "home"), "OMP_NUM_THREADS": "1"}
        _python(_TRAIN, environment)
        unknown = home / "unknown.csv"
        unknown.write_text("sample_id\nno-such-sample\n")
        oubli = str(Path(sys.executable).with_name("oubli"))
        removal = [oubli, "unlearn", "--removals", str(unknown), "--model"]
        for name, command, status, bar in (
            ("oubli --help", [oubli, "--help"], 0, 1.0),
            ("oubli show, a version", [oubli, "show", _MODEL, "1"], 0, 1.5),
            ("oubli unlearn, an unknown id", [*removal, _MODEL], 1, 5.0),
            ("oubli unlearn, no such model", [*removal, "no-such-model"], 1, 5.0),
        ):
            yield _case(name, min(_seconds(command, environment, status) for _ in range(RUNS)), bar)
        environment["NUMBA_CACHE_DIR"] = str(home / "kernels")
        yield _case("a selection, its kernels not compiled", float(_python(_SELECTION, environment)), None)
        later = min(float(_python(_SELECTION, environment)) for _ in range(RUNS))
        yield _case("a selection, its kernels compiled earlier", later, 1.0)


def _case(command: str, seconds: float, bar: float | None) -> Case:
    return {"command": command, "cpu_seconds": seconds, "bar": bar, "met": None if bar is None else seconds <= bar}


def _seconds(command: Sequence[str], environment: Mapping[str, str], status: int) -> float:
    """CPU seconds, user and system, of a process that should end with `status`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _python(program: str, environment: Mapping[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> int:
    as_json = wants_json("What a command costs before it does its work.")
    found = list(cases())
    if as_json:
        print_json(found)
    else:
        for case in found:
            print_table(str(case["command"]), [case], ROWS)
    return int(any(case["met"] is False for case in found))


if __name__ == "__main__":
    sys.exit(main())
