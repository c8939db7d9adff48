"""Runs what is missing: reference models, auditors and methods, one after another, on one cell after another.

Axes: m removed samples, d trained parameters.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import nn

from benchmarks.report import facts as machine
from benchmarks.unlearning.methods.catalogue import CHAIN, METHODS, Method, Shared
from benchmarks.unlearning.methods.task import Task, surrogate_plan
from benchmarks.unlearning.problems import (
    GRID,
    Bench,
    Problem,
    RemovalKind,
    available,
    bench,
    digest,
    train,
)
from benchmarks.unlearning.removals import RemovalSet, content_of
from benchmarks.unlearning.store import Cell, Record, Store, sample_sets, save
from oubli.components.errors import OubliError
from oubli.components.measures.evaluation import evaluate
from oubli.components.measures.relearning import relearn
from oubli.components.model.state import ModelState, output_table
from oubli.components.removal.surrogate import train_surrogate

ORIGINALS, RETRAINED, AUDITORS = range(3), range(10, 15), range(2)
"""Seeds. No two models of a cell share one."""

CHAINED = GRID[:2]

RELEARNING_EPOCHS = 30


@dataclass(frozen=True)
class Plan:
    """What is run: `wanted`, patterns of `problem/set/method` (a part left out at the end stands for all), none for
    everything; `originals` and `retrained`, the seeds of the reference models."""

    grid: tuple[tuple[Problem, RemovalKind], ...]
    store: Store
    data: Path
    wanted: tuple[str, ...] = ()
    originals: Sequence[int] = ORIGINALS
    retrained: Sequence[int] = RETRAINED

    def wants(self, *names: str) -> bool:
        """Whether a problem, a cell or a method is asked for."""
        return not self.wanted or any(
            all(fnmatch(name, part) for name, part in zip(names, pattern.split("/"), strict=False))
            for pattern in self.wanted
        )


def run_all(plan: Plan, tell: Callable[[str], None]) -> None:
    """Run what the store lacks, or has with other settings; each record is kept as soon as it is there."""
    for problem, kind in plan.grid:
        if not plan.wants(problem.name, kind.value):
            continue
        if not available(problem, plan.data):
            tell(f"skipped: {problem.name}, as {plan.data} has no data for it")
            continue
        ready = bench(problem, plan.data)
        _Run(plan, ready, plan.store.removal(ready, kind), tell).everything()


@dataclass(frozen=True)
class _Run:
    """One cell's run."""

    plan: Plan
    bench: Bench
    removal: RemovalSet
    tell: Callable[[str], None]

    @cached_property
    def cell(self) -> Cell:
        return self.plan.store.cell(self.bench.problem.name, self.removal.kind)

    @cached_property
    def key(self) -> list[object]:
        """Of the cell: its data, its removed samples and its training."""
        return [content_of(self.removal.removed), content_of(self.removal.retained), self.bench.problem.training_digest]

    def everything(self) -> None:
        labels = {name: samples.labels for name, samples in sample_sets(self.bench, self.removal).items()}
        save(self.cell.folder / "samples.pt", labels)
        for seed in self.plan.originals:
            self._reference(f"original-{seed}", seed, self._original)
        for seed in self.plan.retrained:
            self._reference(f"retrained-{seed}", seed, self._retrained)
        for number in AUDITORS:
            self._auditor(number)
        name = self.bench.problem.name, self.removal.kind.value
        chained = any((problem.name, kind.value) == name for problem, kind in CHAINED)
        for seed in self.plan.originals:
            methods = [one for one in METHODS if one.everywhere or seed == self.plan.originals[0]]
            self._methods([*methods, CHAIN] if chained else methods, seed)

    def _original(self, seed: int) -> nn.Module:
        return self.plan.store.trained(self.bench, self.removal.train, seed)

    def _retrained(self, seed: int) -> nn.Module:
        return self.plan.store.trained(self.bench, self.removal.retained, seed)

    def _reference(self, name: str, seed: int, trained: Callable[[int], nn.Module]) -> None:
        key = digest([self.key, seed])
        if self._missing(name, key):
            module = trained(seed)
            facts: dict[str, object] = {}
            if name == f"retrained-{self.plan.retrained[0]}":
                facts["relearning"] = self._relearning(ModelState.of(self.bench.objective(module)))
            self._keep(name, ModelState.of(self.bench.objective(module)), facts, key)

    def _auditor(self, number: int) -> None:
        """A fresh surrogate, kept = 0, by which a removal is accepted without a retrained model."""
        plan, name = surrogate_plan(self.bench, kept=0.0), f"auditor-{number}"
        key = digest([self.key, dataclasses.asdict(plan), number])
        if self._missing(name, key):
            objective = self.bench.objective(self.bench.build(0))
            started = time.process_time()
            fresh = self.bench.build(5000 + number)
            state = train_surrogate(objective, objective.theta(), fresh, self.removal.retained, plan, seed=900 + number)
            self._keep(name, state, {"seconds": time.process_time() - started}, key)

    def _methods(self, methods: Sequence[Method], seed: int) -> None:
        task: Task | None = None
        epoch = 0.0
        for method in methods:
            name = f"{method.name}-{seed}"
            key = digest([self.key, method.digest_of(self.bench), seed])
            if not self.plan.wants(self.bench.problem.name, self.removal.kind.value, method.name):
                continue
            if not self._missing(name, key):
                continue
            if task is None:
                task = Task.of(self.bench, self.removal, self._original(seed), seed)
                epoch = self._epoch_seconds()
            self._method(method, task, epoch, key)

    def _method(self, method: Method, task: Task, epoch: float, key: str) -> None:
        """Run one method and keep what became of it; an error that a user would meet is kept as well."""
        facts: dict[str, object] = {"method": method.name, "group": method.group.value, "original": task.seed}
        facts["commit"] = _commit()
        name = f"{method.name}-{task.seed}"
        try:
            extra = sum(_shared_seconds(task, one) for one in method.shared)
            started = time.process_time()
            state = method.run(task)
        except OubliError as error:
            self.cell.write(name, Record({}, math.nan, {**facts, "failed": str(error)}, key))
            self.tell(f"{self.bench.problem.name}/{self.removal.kind.value}/{name} failed: {error}")
            return
        seconds = time.process_time() - started + extra
        facts |= {"seconds": seconds, "share": seconds / (epoch * self.bench.problem.recipe.epochs)}
        if Shared.BLANKET in method.shared:
            facts["block"] = len(task.blanket.indices)
        if method.everywhere and task.seed == self.plan.originals[0]:
            facts["relearning"] = self._relearning(state)
        self._keep(name, state, facts, key)

    def _epoch_seconds(self) -> float:
        """Of one epoch of training, here and now: the measure of every cost."""
        problem, module = self.bench.problem, self.bench.build(3)
        recipe = problem.recipe.shortened(epochs=1, peak_rate=problem.recipe.peak_rate)
        started = time.process_time()
        train(module, self.removal.train, recipe, seed=0)
        return time.process_time() - started

    def _relearning(self, state: ModelState) -> int | None:
        """Epochs on U until the loss is the first original's."""
        before = self.bench.objective(self._original(self.plan.originals[0]))
        objective = state.within(before)
        goal = evaluate(before, before.theta(), self.removal.removed).loss
        found = relearn(objective, state.theta, self.removal.removed, goal=goal, max_epochs=RELEARNING_EPOCHS, seed=0)
        return found.epochs

    def _missing(self, name: str, key: str) -> bool:
        found = self.cell.read(name)
        return found is None or found.digest != key

    def _keep(self, name: str, state: ModelState, facts: dict[str, object], key: str) -> None:
        objective = state.within(self.bench.objective(self.bench.build(0)))
        outputs = {
            part: output_table(objective, state.theta, samples)
            for part, samples in sample_sets(self.bench, self.removal).items()
        }
        accuracy = evaluate(objective, state.theta, self.removal.retained).accuracy
        finite = all(bool(torch.isfinite(table).all()) for table in outputs.values())
        record = Record(outputs, math.nan if accuracy is None else accuracy, {**facts, "finite": finite}, key)
        self.cell.write(name, record)
        problem = self.bench.problem.name
        self.tell(f"{problem}/{self.removal.kind.value}/{name} {facts}")


@cache
def _commit() -> object:
    """Of the checkout that this process started from."""
    return machine()["commit"]


def _shared_seconds(task: Task, shared: Shared) -> float:
    return task.prediction.seconds if shared is Shared.PREDICTION else task.blanket.seconds
