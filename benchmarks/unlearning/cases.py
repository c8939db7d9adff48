"""The grid: which cases there are, and how one removal's are run.

A case is (problem, size of the removal set, seed, strategy). The cases of one removal share their trained models, so a
removal is the unit of work.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from benchmarks.unlearning.data import Data
from benchmarks.unlearning.measures import Reference, verdict
from benchmarks.unlearning.problems import Bench, Problem, bench, digest
from benchmarks.unlearning.removals import HALF_CLASS, removal
from benchmarks.unlearning.store import Line
from benchmarks.unlearning.strategies import BASELINES, Attempt, Desk, Strategy
from benchmarks.unlearning.trainings import Trainings
from oubli.components.measures.class_shares import class_shares

VERSION = 1
"""Raised where a change of the code makes earlier cases another's."""

RELEARNING_SIZES = ("10", "100")

NETWORK_STRATEGIES = tuple(one for one in Strategy if one is not Strategy.TWO_STEPS)
LIKE = Strategy.FULL_SAMPLED_FISHER
"""Whose seconds and length of step two baselines get."""
MANY_CLASSES = (Data.BANKING,)
"""Where a row of the curvature per class leaves too few samples of it, and slow strategies meet their time limit."""
SLOW = (Strategy.ONE_AT_A_TIME, Strategy.FULL_HESSIAN)
CONVEX_STRATEGIES = (Strategy.NOTHING, Strategy.TWO_STEPS)


@dataclass(frozen=True)
class Settings:
    """What holds for every case.

    perturbations: N of L-FOCI, by the removal set's size, fewer where there are many samples. case_seconds: a case that
    takes longer is broken off and counted as refused. slow_size: the one that SLOW strategies are run for.
    """

    perturbations: dict[str, int]
    curvature_samples: int
    retrainings: int
    case_seconds: float
    slow_size: str = "10"


FULL_SETTINGS = Settings({"1": 1000, "10": 500, "50": 200, "100": 200, HALF_CLASS: 100}, 1024, 2, 60.0)
QUICK_SETTINGS = Settings({"1": 100, "10": 60, "50": 40, "100": 40, HALF_CLASS: 30}, 128, 2, 20.0)


@dataclass(frozen=True)
class Removing:
    """The cases of one removal from one model."""

    problem: Problem
    size: str
    seed: int
    strategies: tuple[Strategy, ...]
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.problem.name} m={self.size} seed {self.seed}"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.key(one) for one in self.strategies)

    def run(self, known: Mapping[str, Line], folder: Path, data_folder: Path) -> Iterator[Line]:
        """As `running.Work.run`."""
        return run_removal(self, known, folder, data_folder)

    def key(self, strategy: Strategy) -> str:
        return digest(
            {
                "version": VERSION,
                "problem": self.problem.digest(),
                "size": self.size,
                "seed": self.seed,
                "strategy": strategy.value,
                "perturbations": self.settings.perturbations[self.size],
                "curvature_samples": self.settings.curvature_samples,
                "retrainings": self.settings.retrainings,
                "case_seconds": self.settings.case_seconds,
            }
        )


def grid(problems: tuple[Problem, ...], sizes: tuple[str, ...], seeds: int, settings: Settings) -> list[Removing]:
    """Every removal, those of one problem together."""
    return [
        Removing(problem, size, seed, _strategies(problem, size, settings), settings)
        for problem in problems
        for size in sizes
        for seed in range(seeds)
    ]


def _strategies(problem: Problem, size: str, settings: Settings) -> tuple[Strategy, ...]:
    if problem.convex:
        return CONVEX_STRATEGIES
    # First the one that two baselines are made equal to.
    others = [one for one in NETWORK_STRATEGIES if one is not LIKE]
    if size != settings.slow_size or problem.data in MANY_CLASSES:
        others = [one for one in others if one not in SLOW]
    if problem.data in MANY_CLASSES:
        others.remove(Strategy.FULL_GGN)
    return (LIKE, *others)


class TimeLimitReached(Exception):
    """A case took longer than it may."""


def run_removal(work: Removing, known: Mapping[str, Line], folder: Path, data_folder: Path) -> Iterator[Line]:
    """A line for every case of `work` that is not `known`, as soon as it is there."""
    missing = [one for one in work.strategies if work.key(one) not in known]
    if not missing:
        return
    ready = bench(work.problem, data_folder)
    reference = reference_of(ready, work.size, work.seed, work.settings.retrainings, folder)
    desk = Desk(
        reference=reference,
        data=ready.data,
        convex=work.problem.convex,
        perturbations=work.settings.perturbations[work.size],
        curvature_samples=work.settings.curvature_samples,
        seed=work.seed,
    )
    shared = reference.shared()
    done = dict(known)
    for strategy in missing:
        found = _run_case(work, strategy, desk, done)
        line = {
            "key": work.key(strategy),
            "part": "convex" if work.problem.convex else "networks",
            "problem": work.problem.name,
            "size": work.size,
            "seed": work.seed,
            "strategy": strategy.value,
            **shared,
            **found,
        }
        done[str(line["key"])] = line
        yield line


def reference_of(ready: Bench, size: str, seed: int, retrainings: int, folder: Path) -> Reference:
    """A removal set with its original and retrained models; a convex minimiser needs only one of these.

    The first is retrained as the recipe says, with the original's seed; the others with seeds of their own.
    """
    trainings = Trainings(ready, folder / "models")
    chosen = removal(ready.data, size, seed)
    count = 1 if ready.problem.convex else retrainings
    retrained = tuple(trainings.retrained(chosen, 1000 * again + seed) for again in range(count))
    return Reference(chosen, trainings.original(seed), retrained)


def _run_case(work: Removing, strategy: Strategy, desk: Desk, done: dict[str, Line]) -> dict[str, object]:
    other = done.get(work.key(LIKE), {})
    like = {"seconds": float(str(other.get("seconds", 1.0))), "step_norm": float(str(other.get("step_norm", 0.1)))}
    started = time.perf_counter()
    try:
        with time_limit(work.settings.case_seconds):
            attempt = desk.attempt(strategy, like)
    except TimeLimitReached:
        return {"seconds": time.perf_counter() - started, "verdict": "refused", "reasons": ["time_limit"]}
    return _measured(work, strategy, desk, attempt)


def _measured(work: Removing, strategy: Strategy, desk: Desk, attempt: Attempt) -> dict[str, object]:
    found: dict[str, object] = {"seconds": attempt.seconds, **attempt.facts}
    if attempt.theta is None:
        assert attempt.failure is not None
        return {**found, **verdict(attempt.failure)}
    reference, convex = desk.reference, work.problem.convex
    own = reference.of_update(attempt.theta, convex=convex)
    found |= {**own, "weights": sha256_of(attempt.theta)}
    if not convex and work.size in RELEARNING_SIZES and work.seed == 0:
        found["relearning_epochs"] = reference.relearning(reference.original.objective, attempt.theta)
        target = reference.retrained[0]
        found["relearning_epochs_retrained"] = reference.relearning(target.objective, target.theta)
    if strategy in BASELINES:
        return found
    # Without a verdict: the gate judges networks beside auditors, which this grid does not train.
    shares = class_shares(reference.removed.labels, reference.removal.data.train.labels)
    return {
        **found,
        "model_gradient": attempt.model_gradient,
        "removal_gradient": attempt.removal_gradient,
        "class_share": max(shares.values(), default=0.0),
    }


def sha256_of(theta: torch.Tensor) -> str:
    """Of the weights' bytes."""
    return hashlib.sha256(theta.contiguous().numpy().tobytes()).hexdigest()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeLimitReached in the body after so many seconds, at the next Python instruction."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeLimitReached

    before = signal.signal(signal.SIGALRM, stop)
    started = time.perf_counter()
    remaining, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        # Another's timer goes on, less what was spent here; 0 means there was none.
        left = max(remaining - (time.perf_counter() - started), 1e-3) if remaining else 0.0
        signal.setitimer(signal.ITIMER_REAL, left)
