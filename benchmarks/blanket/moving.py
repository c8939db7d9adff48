"""What a block forgets and what it costs, where matching or small Newton steps move it and all else stays.

Axes: m removed samples, n - m retained, d parameters, d_P of them in a block.

The models retrained without the whole removal set are the reference for every m, and for all m the surrogate, too, has
seen none of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.blanket.problem import Problem, first
from benchmarks.unlearning.measures import divergence, log_softmax, mean_prediction, means_of_the_others
from oubli.components.curvature.fisher import SampledFisher
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.model.state import ModelState, output_table
from oubli.components.removal.matching import MatchingData, MatchingPlan, match_targets
from oubli.components.removal.surrogate import SurrogatePlan, train_surrogate
from oubli.components.removal.targets import hardness, removal_targets

NEWTON_STEPS = 8
"""Small ones, each from the removed samples' gradient taken anew; the curvature is taken once."""


@dataclass(frozen=True)
class Stand:
    """An original model, the targets of all its removed samples, and what outcomes are judged by."""

    problem: Problem
    objective: Objective
    theta: Tensor
    targets: Tensor
    teacher: Tensor
    hardness: Tensor
    reference: Tensor
    predictions: Tensor
    accuracy: float

    @classmethod
    def of(cls, problem: Problem, seed: int) -> Stand:
        objective = problem.original(seed)
        theta = objective.theta()
        plan = SurrogatePlan(problem.bench.problem.recipe.settings)
        fresh = problem.bench.build(1000 + seed)
        found = train_surrogate(objective, theta, fresh, problem.retained, plan, seed=seed)
        surrogate = found.within(objective)
        teacher = output_table(objective, theta, problem.retained)
        predictions = torch.stack(
            [log_softmax(output_table(one, one.theta(), problem.removed)) for one in problem.retrained()]
        )
        return cls(
            problem,
            objective,
            theta,
            removal_targets(
                cross_entropy,
                surrogate_removed=output_table(surrogate, found.theta, problem.removed),
                surrogate_held_out=output_table(surrogate, found.theta, problem.bench.held_out),
                original_held_out=output_table(objective, theta, problem.bench.held_out),
            ),
            teacher,
            hardness(cross_entropy, original=teacher, surrogate=output_table(surrogate, found.theta, problem.retained)),
            mean_prediction(predictions),
            predictions,
            _accuracy(objective, theta, _judged_test(problem)),
        )

    def floor(self, places: Tensor) -> float:
        """KL on the removed samples of one retrained model to the mean of the others."""
        own = self.predictions[:, places]
        return fmean(divergence(mean, one) for mean, one in zip(means_of_the_others(own), own, strict=True))

    def matched(self, places: Tensor, block: Tensor | None, seed: int, power: float) -> tuple[ModelState, float]:
        """The model matched on the removed samples at `places`, at the plan's rate times (d / d_P)^power, and CPU
        seconds."""
        data = MatchingData(
            self.problem.removed.select(places),
            self.targets[places],
            self.problem.retained,
            self.teacher,
            self.hardness,
        )
        share = 1.0 if block is None else len(block) / len(self.theta)
        # A plan's own power is 1/2.
        rate = MatchingPlan().rate(len(places)) * share ** (0.5 - power)
        plan = MatchingPlan(steps=self.problem.scale.steps, rate_of_one=rate, rate_of_many=rate)
        return _timed(lambda: match_targets(self.objective, self.theta, data, plan, seed=seed, block=block))

    def newton(self, places: Tensor, block: Tensor | None, seed: int, damping: float) -> tuple[ModelState, float]:
        """K small Newton steps on the block, with the curvature of some retained samples, and CPU seconds."""
        removed, retained = self.problem.removed.select(places), self.problem.retained
        some = retained.select(
            torch.randperm(len(retained), generator=torch.Generator().manual_seed(seed))[: self.problem.scale.curvature]
        )
        objective = self.objective

        def steps() -> ModelState:
            restriction = Restriction(objective, self.theta, block)
            system = SampledFisher(restriction, some).system()
            theta = self.theta
            for _ in range(NEWTON_STEPS):
                pull = gradient_sum(objective, theta, removed) + len(places) * objective.l2 * theta
                right = pull[restriction.indices] / (NEWTON_STEPS * len(retained))
                theta = theta.index_add(0, restriction.indices, system.solve(right, objective.l2 + damping).x)
            return ModelState.of(objective, theta)

        return _timed(steps)

    def judged(self, state: ModelState | None, places: Tensor) -> dict[str, float]:
        """KL on the removed samples to the retrained models, drift on R, and test accuracy's change."""
        moved = self.objective if state is None else state.within(self.objective)
        theta = self.theta if state is None else state.theta
        removed = output_table(moved, theta, self.problem.removed.select(places))
        retained = output_table(moved, theta, first(self.problem.retained, self.problem.scale.judged))
        return {
            "kl_removed": divergence(self.reference[places], log_softmax(removed)),
            "drift": divergence(log_softmax(self.teacher[: len(retained)]), log_softmax(retained)),
            "accuracy_change": _accuracy(moved, theta, _judged_test(self.problem)) - self.accuracy,
        }


def _timed(work: Callable[[], ModelState]) -> tuple[ModelState, float]:
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


def _judged_test(problem: Problem) -> Samples:
    return first(problem.bench.test, 2 * problem.scale.judged)


def _accuracy(objective: Objective, theta: Tensor, samples: Samples) -> float:
    return float((output_table(objective, theta, samples).argmax(1) == samples.labels).double().mean())
