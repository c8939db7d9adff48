"""What a method is given: one removal from one trained model.

Axes: m removed samples, n - m retained ones, C classes, d trained parameters.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.unlearning.problems import Bench, Model, Recipe
from benchmarks.unlearning.removals import RemovalSet
from oubli.components.blocks.blanket import BlanketPlan
from oubli.components.blocks.choosing import BlockChoice, select_block
from oubli.components.lfoci import l_foci
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.state import ModelState, output_table
from oubli.components.removal.matching import MatchingPlan
from oubli.components.removal.surrogate import SurrogatePlan, train_surrogate
from oubli.components.removal.targets import hardness, removal_targets

SHARE = 10
"""Methods that train for a while take one epoch in so many of the original training's."""

TEXT_EPOCHS = 2
"""Of a surrogate on texts, at least: one epoch teaches an encoder little."""

BLANKET_COPIES, BLANKET_SAMPLES = 200, 20
"""Perturbed copies of a removed sample, and removed samples at most, that L-FOCI's block is selected from."""


@dataclass(frozen=True)
class Prediction:
    """What matching moves to, and what it took: targets (m, C) on U; teacher (n - m, C) and hardness (n - m,) on R."""

    targets: Tensor
    teacher: Tensor
    hardness: Tensor
    seconds: float


@dataclass(frozen=True)
class ChosenBlock:
    """indices: (d_P,) int64 flat parameter indices."""

    indices: Tensor
    seconds: float


@dataclass(frozen=True)
class Task:
    """One removal from one original model: its objective, with its buffers, and theta (d,); a method's own seed."""

    bench: Bench
    removal: RemovalSet
    objective: Objective
    theta: Tensor
    seed: int

    @classmethod
    def of(cls, bench: Bench, removal: RemovalSet, original: nn.Module, seed: int) -> Task:
        objective = bench.objective(original)
        return cls(bench, removal, objective, objective.theta(), seed)

    @cached_property
    def removed(self) -> Samples:
        return self.removal.removed

    @cached_property
    def retained(self) -> Samples:
        return self.removal.retained

    def module(self) -> nn.Module:
        """A copy of the original model that may be trained."""
        return copy.deepcopy(self.objective.module).requires_grad_(True).eval()

    def short(self, rate_factor: float) -> Recipe:
        """The recipe for a tenth of its epochs, at so many times its peak rate."""
        recipe = self.bench.problem.recipe
        return recipe.shortened(epochs=max(1, round(recipe.epochs / SHARE)), peak_rate=rate_factor * recipe.peak_rate)

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(7000 + self.seed)

    @cached_property
    def prediction(self) -> Prediction:
        """From one surrogate; its passes over R and V, and the original's, are part of the cost."""
        started = time.process_time()
        objective, theta, retained, held_out = self.objective, self.theta, self.retained, self.bench.held_out
        fresh = self.bench.build(1000 + self.seed)
        state = train_surrogate(objective, theta, fresh, retained, surrogate_plan(self.bench), seed=self.seed)
        surrogate = state.within(objective)
        teacher = output_table(objective, theta, retained)
        weights = hardness(cross_entropy, original=teacher, surrogate=output_table(surrogate, state.theta, retained))
        targets = removal_targets(
            cross_entropy,
            surrogate_removed=output_table(surrogate, state.theta, self.removed),
            surrogate_held_out=output_table(surrogate, state.theta, held_out),
            original_held_out=output_table(objective, theta, held_out),
        )
        return Prediction(targets, teacher, weights, time.process_time() - started)

    @cached_property
    def blanket(self) -> ChosenBlock:
        """L-FOCI's block; of few samples and copies, as a selection from all costs more than a training."""
        _compile()
        started = time.process_time()
        removed = self.removed.select(torch.arange(min(BLANKET_SAMPLES, len(self.removed))))
        plan = BlanketPlan(perturbations=BLANKET_COPIES, threads=1, perturbation=self.bench.perturbation)
        block = select_block(BlockChoice.L_FOCI, self.objective, self.theta, removed, plan, seed=self.seed)
        assert block.indices is not None
        return ChosenBlock(block.indices, time.process_time() - started)


@cache
def _compile() -> None:
    """L-FOCI's kernels, once in a process: no cost of a removal."""
    table = np.random.default_rng(0).normal(size=(BLANKET_COPIES, 8))
    l_foci(table, table[:, 0], generator=np.random.default_rng(0), threads=1)


def surrogate_plan(bench: Bench, *, kept: float = SurrogatePlan.kept) -> SurrogatePlan:
    """The defaults; more epochs on texts."""
    epochs = max(TEXT_EPOCHS, SurrogatePlan.epochs) if bench.problem.model is Model.ENCODER else SurrogatePlan.epochs
    return SurrogatePlan(bench.problem.recipe.settings, kept=kept, epochs=epochs)


def matching_plan() -> MatchingPlan:
    """The defaults."""
    return MatchingPlan()


def state_of(bench: Bench, module: nn.Module) -> ModelState:
    """Weights and buffers of a module that was trained."""
    return ModelState.of(bench.objective(module))
