"""One stage of the cost study, in this process alone; prints its figures as JSON.

python -m benchmarks.unlearning.cost_child STAGE FOLDER DATA full|quick
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.unlearning.cost import REMOVED
from benchmarks.unlearning.data import Data
from benchmarks.unlearning.problems import Bench, Model, Problem, Training, bench
from benchmarks.unlearning.removals import Removal, removal
from oubli.components.curvature.kinds import CurvatureKind, curvature_builder
from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot
from oubli.components.curvature.snapshots.taking import restore_snapshot, take_snapshot
from oubli.components.measures.evaluation import evaluate, retained_gradient_norm
from oubli.components.model.chunking import pass_chunk
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.removal.damping import Least
from oubli.components.removal.from_snapshot import removal_from_snapshot
from oubli.components.removal.newton import NewtonPlan, newton_removal
from oubli.components.removal.update import RemovalUpdate

SOME_SAMPLES = 1024
"""Retained samples that dampings are judged by, and others that the sampled Fisher of `newton_sampled` is made of."""

FULL = Problem(Data.FASHION, Model.CNN, 1e-3, Training(30, settling=10), subset=10**9)
QUICK = Problem(Data.DIGITS, Model.CNN, 1e-3, Training(6, settling=2))


@dataclass
class Clock:
    """Seconds and peak memory of what is timed; what was in memory before counts, as it does for training."""

    started: float = 0.0

    def __enter__(self) -> Clock:
        _reset_peak()
        self.started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.started
        self.peak_mb = _peak_mb()


def main(stage: str, place: Path, data_folder: Path, size: str) -> dict[str, object]:
    ready = bench(QUICK if size == "quick" else FULL, data_folder)
    chosen = removal(ready.data, str(REMOVED), 0)
    clock = Clock()
    facts: dict[str, object] = {"problem": f"{ready.problem.name}, n = {len(ready.data.train)}"}
    if stage == "training":
        facts |= _train(ready, place, clock)
    elif stage == "snapshot":
        objective = _trained(ready, place)
        with clock:
            snapshot = take_snapshot(objective, objective.theta(), ready.data.train)
        save_file(snapshot.tensors(), place / "snapshot.safetensors")
        (place / "snapshot.json").write_text(json.dumps(snapshot.facts()), encoding="utf-8")
        facts["snapshot_mb"] = (place / "snapshot.safetensors").stat().st_size / 2**20
    else:
        facts |= _remove(stage, ready, chosen, place, clock)
    return {**facts, "threads": torch.get_num_threads(), "seconds": clock.seconds, "peak_mb": clock.peak_mb}


def _train(ready: Bench, place: Path, clock: Clock) -> dict[str, object]:
    module = ready.build(0)
    with clock:
        ready.train(module, ready.data.train, 0)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, place / "model.safetensors")
    objective = ready.objective(module)
    gradient = retained_gradient_norm(objective, objective.theta(), ready.data.train)
    return {**_test(ready, objective, objective.theta()), "train_gradient": gradient, "d": objective.space.d}


def _remove(stage: str, ready: Bench, chosen: Removal, place: Path, clock: Clock) -> dict[str, object]:
    objective = _trained(ready, place)
    theta, removed = objective.theta(), chosen.removed
    facts: dict[str, object] = {}
    # What torch loads at its first use takes more than a second, once in a process.
    pass_chunk(objective, removed)
    if stage == "from_snapshot":
        tensors = load_file(place / "snapshot.safetensors")
        described = json.loads((place / "snapshot.json").read_text(encoding="utf-8"))
        probe = _some(chosen.retained, seed=1)
        with clock:
            snapshot = restore_snapshot(tensors, described)
            update = _step(objective, snapshot, removed, probe)
    elif stage == "one_pass":
        with clock:
            # Gradient of all samples in one pass; the removed samples' part is taken off again.
            snapshot = take_snapshot(objective, theta, ready.data.train)
            update = _step(objective, snapshot, removed, _some(chosen.retained, seed=1))
    else:
        retained = chosen.retained
        with clock:
            update = newton_removal(
                objective,
                theta,
                retained,
                RemovedGradient.of(objective, theta, removed),
                NewtonPlan(
                    steps=1,
                    damping=Least(probe=_some(retained, seed=1)),
                    convex=False,
                    curvature=curvature_builder(
                        CurvatureKind.SAMPLED_FISHER if stage == "newton_sampled" else CurvatureKind.KFAC
                    ),
                    curvature_samples=_some(retained, seed=0) if stage == "newton_sampled" else None,
                ),
            )
    started = time.perf_counter()
    after = retained_gradient_norm(objective, update.theta, chosen.retained)
    facts["check_seconds"] = time.perf_counter() - started
    facts["gradient_ratio"] = after / _before(update)
    return {**facts, **_test(ready, objective, update.theta)}


def _step(objective: Objective, snapshot: CurvatureSnapshot, removed: Samples, probe: Samples) -> RemovalUpdate:
    return removal_from_snapshot(objective, objective.theta(), snapshot, removed, damping=Least(probe=probe))


def _some(retained: Samples, *, seed: int) -> Samples:
    order = torch.randperm(len(retained), generator=torch.Generator().manual_seed(seed))
    return retained.select(order[:SOME_SAMPLES])


def _before(update: RemovalUpdate) -> float:
    return update.steps[0].gradient_before


def _trained(ready: Bench, place: Path) -> Objective:
    module = ready.build(0)
    module.load_state_dict(load_file(place / "model.safetensors"))
    return ready.objective(module)


def _test(ready: Bench, objective: Objective, theta: torch.Tensor) -> dict[str, object]:
    return {"test_accuracy": evaluate(objective, theta, ready.data.test).accuracy}


def _reset_peak() -> None:
    """Let the kernel count the peak from now on, where it can: loading the data may have taken more."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _peak_mb() -> float:
    """The largest resident set since `_reset_peak`, or since the start."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])))
