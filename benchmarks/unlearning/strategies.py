"""The updates that are compared, by name.

Axes: m removed samples, n - m retained samples, d parameters, d_P of them in the block.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.unlearning.data import DataSet
from benchmarks.unlearning.measures import Reference
from oubli.components.blocks.blanket import BlanketPlan
from oubli.components.blocks.choosing import Block, BlockChoice, select_block
from oubli.components.curvature.kinds import CurvatureBuilder, CurvatureKind, curvature_builder
from oubli.components.curvature.snapshots.low_rank import LowRankSnapshot
from oubli.components.errors import IndefiniteCurvature, NumericalError
from oubli.components.gate.evidence import EmptyBlockEvidence, GateEvidence, IndefiniteEvidence, UnsolvedEvidence
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.samples import Samples
from oubli.components.removal.damping import Damping, Least, Undamped
from oubli.components.removal.from_snapshot import removal_from_snapshot
from oubli.components.removal.newton import NewtonPlan, newton_removal
from oubli.components.removal.one_at_a_time import one_at_a_time
from oubli.components.removal.update import RemovalUpdate


class Strategy(StrEnum):
    """What is done to the weights.

    Blocks take the sampled Fisher matrix of a sample of the retained set: it estimates the generalised Gauss-Newton
    matrix without bias, at one row a sample in place of one per class.
    """

    NOTHING = "nothing"
    """The original weights."""
    FINE_TUNING = "fine_tuning"
    """Training on the retained samples for as long as `full_sampled_fisher` takes."""
    GRADIENT_ASCENT = "gradient_ascent"
    """One step up the removed samples' loss, as long as that of `full_sampled_fisher`."""
    L_FOCI = "l_foci"
    L_FOCI_BATCH = "l_foci_batch"
    TOP_GRADIENT = "top_gradient"
    RANDOM = "random"
    FULL_GGN = "full_ggn"
    FULL_KFAC = "full_kfac"
    FULL_EKFAC = "full_ekfac"
    FULL_FISHER = "full_fisher"
    FULL_SAMPLED_FISHER = "full_sampled_fisher"
    FULL_HESSIAN = "full_hessian"
    FULL_FINITE_DIFFERENCE = "full_finite_difference"
    """The paper's rank-one secant."""
    ONE_AT_A_TIME = "one_at_a_time"
    """`full_sampled_fisher` once per removed sample, its curvature refreshed."""
    FROM_SNAPSHOT = "from_snapshot"
    """All parameters, from leading directions kept when the original was trained; `seconds` without keeping them."""
    TWO_STEPS = "two_steps"
    """Of a convex model: two steps with the generalised Gauss-Newton matrix of all retained samples."""


BASELINES = (Strategy.NOTHING, Strategy.FINE_TUNING, Strategy.GRADIENT_ASCENT)

ON_BLOCKS = {
    Strategy.L_FOCI: BlockChoice.L_FOCI,
    Strategy.L_FOCI_BATCH: BlockChoice.L_FOCI_BATCH,
    Strategy.TOP_GRADIENT: BlockChoice.TOP_GRADIENT,
    Strategy.RANDOM: BlockChoice.RANDOM,
}

FULL = {
    Strategy.FULL_GGN: CurvatureKind.GGN,
    Strategy.FULL_KFAC: CurvatureKind.KFAC,
    Strategy.FULL_EKFAC: CurvatureKind.EKFAC,
    Strategy.FULL_FISHER: CurvatureKind.FISHER,
    Strategy.FULL_SAMPLED_FISHER: CurvatureKind.SAMPLED_FISHER,
    Strategy.FULL_HESSIAN: CurvatureKind.HESSIAN,
    Strategy.FULL_FINITE_DIFFERENCE: CurvatureKind.FINITE_DIFFERENCE,
}

ON_ALL_RETAINED = (CurvatureKind.KFAC, CurvatureKind.EKFAC, CurvatureKind.FINITE_DIFFERENCE)
"""Curvatures that cost one or two passes; the others take a sample of the retained set."""

GGN_ROWS = 1536
"""Rows of a sampled generalised Gauss-Newton matrix's factor: beyond, a network's system takes minutes."""

FINE_TUNING_RATE = 1e-3
FINE_TUNING_BATCH = 128


@dataclass(frozen=True)
class Attempt:
    """theta (d,): the updated weights, None where none were found, for the reason `failure`. facts: how it went."""

    theta: Tensor | None
    seconds: float
    facts: dict[str, object] = field(default_factory=dict)
    failure: GateEvidence | None = None
    model_gradient: float = 0.0
    removal_gradient: float = 0.0


@dataclass(frozen=True)
class Desk:
    """One removal from one model, with what several strategies share.

    perturbations: N. curvature_samples: of the retained, for the curvatures that take a sample.
    """

    reference: Reference
    data: DataSet
    convex: bool
    perturbations: int
    curvature_samples: int
    seed: int

    def attempt(self, strategy: Strategy, like: dict[str, float]) -> Attempt:
        """The weights after `strategy`. like: seconds and step_norm of `full_sampled_fisher`, for the baselines."""
        if strategy is Strategy.NOTHING:
            return Attempt(self.theta, 0.0)
        if strategy is Strategy.FINE_TUNING:
            return self._fine_tuning(like["seconds"])
        if strategy is Strategy.GRADIENT_ASCENT:
            return self._gradient_ascent(like["step_norm"])
        if strategy is Strategy.TWO_STEPS:
            return self._newton(None, CurvatureKind.GGN, steps=2)
        if strategy is Strategy.ONE_AT_A_TIME:
            return self._singly()
        if strategy is Strategy.FROM_SNAPSHOT:
            return self._from_snapshot()
        if strategy in FULL:
            return self._newton(None, FULL[strategy])
        block, seconds = self._block(ON_BLOCKS[strategy])
        return self._newton(block, CurvatureKind.SAMPLED_FISHER, spent=seconds)

    @property
    def theta(self) -> Tensor:
        return self.reference.original.theta

    def sample(self, kind: CurvatureKind) -> Samples:
        """Of the retained samples, at random: fewer for the matrix that has a row per class of each."""
        retained = self.reference.retained
        order = torch.randperm(len(retained), generator=torch.Generator().manual_seed(self.seed))
        rows = GGN_ROWS // self.data.classes if kind is CurvatureKind.GGN else self.curvature_samples
        return retained.select(order[: min(rows, self.curvature_samples)])

    @cached_property
    def l_foci(self) -> tuple[Block, float]:
        """The block that the others of equal size are measured by, and the seconds it took."""
        return self._timed_block(BlockChoice.L_FOCI, None)

    def _block(self, selection: BlockChoice) -> tuple[Block, float]:
        if selection is BlockChoice.L_FOCI:
            return self.l_foci
        if selection is BlockChoice.L_FOCI_BATCH:
            return self._timed_block(selection, None)
        chosen = self.l_foci[0].indices
        return self._timed_block(selection, max(1, 0 if chosen is None else len(chosen)))

    def _timed_block(self, selection: BlockChoice, size: int | None) -> tuple[Block, float]:
        started = time.perf_counter()
        block = select_block(
            selection,
            self.reference.original.objective,
            self.theta,
            self.reference.removed,
            BlanketPlan(self.data.perturbation(), self.perturbations),
            seed=self.seed,
            size=size,
        )
        return block, time.perf_counter() - started

    def _newton(self, block: Block | None, kind: CurvatureKind, *, steps: int = 1, spent: float = 0.0) -> Attempt:
        facts: dict[str, object] = {}
        if block is not None:
            facts |= {
                "block_parameters": block.size(self.reference.original.objective),
                "slices": len(block.slices),
                "candidates": block.candidates,
                "perturbations": self.perturbations if block.blanket is not None else None,
                "selection_seconds": spent,
            }
            if block.empty:
                return Attempt(None, spent, facts, EmptyBlockEvidence(block.candidates))
        sampled = not self.convex and kind not in ON_ALL_RETAINED
        sample = self.sample(kind) if sampled else None
        facts["curvature_samples"] = len(self.reference.retained) if sample is None else len(sample)

        def run() -> RemovalUpdate:
            original = self.reference.original
            return newton_removal(
                original.objective,
                self.theta,
                self.reference.retained,
                RemovedGradient.of(original.objective, self.theta, self.reference.removed),
                self._plan(kind, sample, steps),
                block=None if block is None else block.indices,
            )

        return attempted(run, facts, spent)

    def _plan(self, kind: CurvatureKind, sample: Samples | None, steps: int = 1) -> NewtonPlan:
        return NewtonPlan(steps, self._damping(), self.convex, self.curvature(kind), sample)

    def _damping(self, probe: Samples | None = None) -> Damping:
        return Undamped() if self.convex else Least(probe=probe)

    def curvature(self, kind: CurvatureKind) -> CurvatureBuilder:
        return curvature_builder(kind, secant=self.reference.original.secant, seed=self.seed)

    def _singly(self) -> Attempt:
        def run() -> RemovalUpdate:
            return one_at_a_time(
                self.reference.original.objective,
                self.theta,
                self.reference.retained,
                self.reference.removed,
                self._plan(CurvatureKind.SAMPLED_FISHER, self.sample(CurvatureKind.SAMPLED_FISHER)),
            )

        return attempted(run, {}, 0.0)

    def _from_snapshot(self) -> Attempt:
        objective = self.reference.original.objective
        snapshot = LowRankSnapshot.take(objective, self.theta, self.data.train)

        def run() -> RemovalUpdate:
            return removal_from_snapshot(
                objective,
                self.theta,
                snapshot,
                self.reference.removed,
                damping=self._damping(self.reference.retained),
            )

        return attempted(run, {}, 0.0)

    def _fine_tuning(self, seconds: float) -> Attempt:
        """Adam on the retained samples, in evaluation mode, until the seconds are spent."""
        objective = self.reference.original.objective
        retained = objective.prepare(self.reference.retained)
        weights = self.theta.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([weights], lr=FINE_TUNING_RATE)
        generator = torch.Generator().manual_seed(self.seed)
        started, batches = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            order = torch.randperm(len(retained), generator=generator)
            for batch in retained.select(order).batches(FINE_TUNING_BATCH):
                optimiser.zero_grad()
                value = objective.losses(weights, batch).mean() + objective.penalty(weights)
                value.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                batches += 1
                if time.perf_counter() - started >= seconds:
                    break
        return Attempt(weights.detach(), time.perf_counter() - started, {"batches": batches})

    def _gradient_ascent(self, length: float) -> Attempt:
        started = time.perf_counter()
        total = RemovedGradient.of(self.reference.original.objective, self.theta, self.reference.removed).total
        norm = float(total.norm())
        moved = self.theta + total * (length / norm if norm > 0 else 0.0)
        return Attempt(moved, time.perf_counter() - started, {"step_norm": length})


def attempted(run: Callable[[], RemovalUpdate], facts: dict[str, object], spent: float) -> Attempt:
    """What `run` gives, or the evidence of its failure."""
    started = time.perf_counter()
    try:
        update = run()
    except IndefiniteCurvature as error:
        return Attempt(None, spent + time.perf_counter() - started, facts, IndefiniteEvidence(error.problem))
    except NumericalError as error:
        return Attempt(None, spent + time.perf_counter() - started, facts, UnsolvedEvidence(error.problem))
    seconds = spent + time.perf_counter() - started
    last = update.steps[-1]
    told: dict[str, object] = {
        "damping": last.damping,
        "tries": sum(one.tries for one in update.steps),
        "solver": str(last.solver),
        "iterations": sum(one.iterations for one in update.steps),
        "step_norm": last.step_norm,
    }
    return Attempt(update.theta, seconds, facts | told, None, update.model_gradient, update.removal_gradient)
