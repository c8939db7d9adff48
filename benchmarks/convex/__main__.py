"""`python -m benchmarks.convex [--only PART] [--data FOLDER]`: see the package.

The bars: relative distance ||w- - w_R|| / ||w* - w_R|| at most 1e-6, in at most 1/20 of the CPU time of retraining from
nothing to that distance, and 1/8 of retraining from w*. Writes benchmarks/results/convex.json; with --only, the other
problems' figures stay. A retraining is given up at GIVE_UP times its bar, and the figure is then a least one.

The removal stops by the bound that it measures itself; retraining stops by the true distance.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.convex.problems import Convex, Name, problem
from benchmarks.convex.retraining import Watch, lbfgs, newton_cg
from benchmarks.report import facts
from benchmarks.unlearning.data import default_folder
from oubli.components.curvature.convex_passes import convex_passes
from oubli.components.curvature.factors import CurvatureFactor, take_factor
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.samples import Samples
from oubli.components.removal.convex import convex_removal
from oubli.components.removal.update import RemovalUpdate

NEAR = 1e-6
COLD, WARM = 20, 8
GIVE_UP = 1.5
RESULTS = Path(__file__).resolve().parents[1] / "results" / "convex.json"
_Result = TypeVar("_Result")

TRUTH = 1e-9
"""Tolerance of what distances are measured to."""


def timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """What it gives, and CPU seconds of this thread."""
    started = time.thread_time()
    return work(), time.thread_time() - started


def case(convex: Convex, theta: Tensor, positions: Tensor, factor: CurvatureFactor) -> dict[str, object]:
    """One removal set: the removal, and the quicker of two retrainings from nothing and from w*."""
    retained, removed = _parts(convex, positions)
    update, seconds = timed(lambda: _removal(convex, theta, retained, removed, factor))
    gradient = RemovedGradient.of(convex.objective, update.theta, removed)
    truth = convex_removal(convex.objective, update.theta, retained, gradient, factor, tolerance=TRUTH).theta
    scale = float((theta - truth).norm())

    def distance(at: Tensor) -> float:
        return float((at - truth).norm()) / scale

    passes = convex_passes(convex.objective, retained)
    found: dict[str, object] = {"m": len(removed), "n": len(convex.samples), "distance": distance(update.theta)}
    found |= {"bound": (update.steps[-1].bound or 0.0) / scale, "seconds": seconds, "steps": len(update.steps)}
    found["passes"] = sum(step.passes for step in update.steps)
    met = distance(update.theta) <= NEAR
    for name, start, bar in (("cold", torch.zeros_like(theta), COLD), ("warm", theta, WARM)):
        quickest, by, reached = GIVE_UP * bar * seconds, "", False
        for opponent in (newton_cg, lbfgs):
            watch = Watch(distance, NEAR, quickest)
            opponent(passes, start, watch)
            if watch.reached:
                quickest, by, reached = watch.seconds, opponent.__name__, True
        found |= {f"{name}_seconds": quickest, f"{name}_by": by, f"{name}_reached": reached}
        found[f"{name}_ratio"] = quickest / seconds
        met = met and quickest >= bar * seconds
    return found | {"met": met}


def chain(convex: Convex, theta: Tensor, factor: CurvatureFactor, length: int = 100) -> dict[str, object]:
    """Removals of one sample after another, all with the factor of the first model."""
    order = next(reversed(convex.removals().values()))[:length]
    seconds, passes = [], []
    for count in range(1, len(order) + 1):
        retained, _ = _parts(convex, order[:count])
        last = convex.samples.select(order[count - 1 : count])
        update, spent = timed(
            lambda at=theta, left=retained, gone=last: _removal(convex, at, left, gone, factor)  # type: ignore[misc]
        )
        theta = update.theta
        seconds.append(spent)
        passes.append(sum(step.passes for step in update.steps))
    return {
        "length": len(order),
        "first_ten_seconds": sum(seconds[:10]) / 10,
        "last_ten_seconds": sum(seconds[-10:]) / 10,
        "first_ten_passes": sum(passes[:10]) / 10,
        "last_ten_passes": sum(passes[-10:]) / 10,
    }


def measured(name: Name, folder: Path, chained: int) -> dict[str, object]:
    """One problem: trained, the factor taken, and every removal set."""
    convex = problem(name, folder)
    objective, samples = convex.objective, convex.samples
    start = objective.theta()
    nothing = RemovedGradient(torch.zeros_like(start), 1)
    theta = convex_removal(
        objective, start, samples, nothing, _required(take_factor(objective, start, samples)), tolerance=TRUTH
    ).theta
    factor, factor_seconds = timed(lambda: _required(take_factor(objective, theta, samples)))
    report: dict[str, object] = {
        "parameters": objective.space.d,
        "l2": objective.l2,
        "factor": factor.form.value,
        "factor_seconds": factor_seconds,
        "factor_bytes": sum(tensor.nbytes for tensor in factor.tensors().values()),
    }
    # No set pays for first calls.
    _removal(convex, theta, *_parts(convex, torch.arange(1)), factor)
    sets: dict[str, object] = {}
    for label, positions in convex.removals().items():
        sets[label] = case(convex, theta, positions, factor)
        print(name.value, label, sets[label], flush=True)
    report["sets"] = sets
    if chained:
        report["chain"] = chain(convex, theta, factor, chained)
        print(name.value, report["chain"], flush=True)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.convex", description=__doc__)
    parser.add_argument("--only", choices=[name.name.lower() for name in Name], action="append", help="one problem")
    parser.add_argument("--data", type=Path, default=default_folder(), help="folder of the Parquet files")
    parser.add_argument("--chain", type=int, default=100, help="removals of one sample in a chain; 0 for none")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, dict[str, Any]] = {}
    for name in Name:
        if arguments.only and name.name.lower() not in arguments.only:
            continue
        found = measured(name, arguments.data, arguments.chain) | {"machine": facts()}
        kept = (json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}) | {name.value: found}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    met = all(one["met"] for found in kept.values() for one in found["sets"].values())
    return 0 if met else 1


def _parts(convex: Convex, positions: Tensor) -> tuple[Samples, Samples]:
    """The retained and the removed samples."""
    stays = torch.ones(len(convex.samples), dtype=torch.bool)
    stays[positions] = False
    return convex.samples.select(stays.nonzero().flatten()), convex.samples.select(positions)


def _removal(
    convex: Convex, theta: Tensor, retained: Samples, removed: Samples, factor: CurvatureFactor
) -> RemovalUpdate:
    gradient = RemovedGradient.of(convex.objective, theta, removed)
    return convex_removal(convex.objective, theta, retained, gradient, factor)


def _required(factor: CurvatureFactor | None) -> CurvatureFactor:
    if factor is None:
        raise RuntimeError("every problem here has a factor")
    return factor


if __name__ == "__main__":
    sys.exit(main())
