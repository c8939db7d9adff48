"""Is the blanket worth it? L-FOCI's blocks against others of equal size, at equal damping.

Axes: m removed samples, N perturbed copies, d parameters, d_P of them in a block.

Every block gets the same absolute damping: a factor times the mean diagonal of the full curvature, so that no choice
of block is helped by being damped less. The curvature is the sampled Fisher matrix of a sample of the retained set.
`forgotten` is how much of the rise of the loss on the removed samples, from the original to retrained, the update
achieves; 1 is as much as retraining.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.unlearning.cases import reference_of
from benchmarks.unlearning.data import Data, DataSet
from benchmarks.unlearning.measures import Reference
from benchmarks.unlearning.problems import Problem, bench, digest
from benchmarks.unlearning.store import Line
from oubli.components.blocks.blanket import BlanketPlan
from oubli.components.blocks.choosing import Block, BlockChoice, select_block
from oubli.components.blocks.union import UnionRule
from oubli.components.curvature.fisher import SampledFisher
from oubli.components.errors import NumericalError
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples

VERSION = 1

DAMPINGS = (0.3, 3.0)
"""In units of the mean diagonal of the full curvature."""

COLUMNS = [
    "problem",
    "size",
    "seed",
    "variant",
    "selection",
    "damping_factor",
    "block_share",
    "divergence",
    "floor",
    "forgotten",
    "gradient_ratio",
    "test_accuracy_off",
]


@dataclass(frozen=True)
class Variant:
    """Options of one selection by L-FOCI; `largest_share`: of the parameters that the block may have, None for all.

    strength: of the perturbation, 1 the default. largest_m: the largest removal set that it is tried on.
    """

    name: str
    perturbations: int = 200
    strength: float = 1.0
    batch: bool = False
    min_share: float = 0.0
    largest_share: float | None = None
    largest_m: int = 1000


VARIANTS = (
    Variant("default"),
    Variant("N=50", perturbations=50),
    Variant("N=1000", perturbations=1000, largest_m=20),
    Variant("perturbed by half", strength=0.5),
    Variant("perturbed threefold", strength=3.0),
    Variant("batch", batch=True),
    Variant("batch, N=1000", batch=True, perturbations=1000, largest_m=20),
    Variant("chosen by 20 %", min_share=0.2),
    Variant("largest block d/4", largest_share=0.25),
    Variant("largest block d/20", largest_share=0.05),
)

QUICK_VARIANTS = (Variant("default", perturbations=40),)


@dataclass(frozen=True)
class BlanketStudy:
    """All variants for one removal from one model."""

    problem: Problem
    size: str
    seed: int
    variants: tuple[Variant, ...]
    curvature_samples: int
    retrainings: int = 2

    @property
    def name(self) -> str:
        return f"blanket {self.problem.name} m={self.size} seed {self.seed}"

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._key(*one) for one in self._all())

    def _all(self) -> list[tuple[str, str, float]]:
        # CUAD's sets are about as large as their name says.
        variants = [one.name for one in self.variants if int(self.size) <= one.largest_m]
        chosen = ("l_foci", "top_gradient", "random")
        found = [(name, selection, damping) for name in variants for selection in chosen for damping in DAMPINGS]
        return [*found, *(("all parameters", "full", damping) for damping in DAMPINGS)]

    def _key(self, variant: str, selection: str, damping: float) -> str:
        options = [asdict(one) for one in self.variants if one.name == variant]
        settings = (self.problem.digest(), self.size, self.seed, self.curvature_samples, self.retrainings)
        return digest(["blanket", VERSION, settings, options, variant, selection, damping])

    def run(self, known: Mapping[str, Line], folder: Path, data_folder: Path) -> Iterator[Line]:
        """As `running.Work.run`."""
        ready = bench(self.problem, data_folder)
        reference = reference_of(ready, self.size, self.seed, self.retrainings, folder)
        stand = _Stand.of(reference, ready.data, self.curvature_samples, self.seed)
        chosen: dict[str, int] = {}
        for variant in [one for one in self.variants if int(self.size) <= one.largest_m]:
            for selection in (BlockChoice.L_FOCI, BlockChoice.TOP_GRADIENT, BlockChoice.RANDOM):
                if all(self._key(variant.name, selection.value, one) in known for one in DAMPINGS):
                    continue
                if selection is not BlockChoice.L_FOCI and variant.name not in chosen:
                    chosen[variant.name] = stand.block(variant, BlockChoice.L_FOCI, None).size(stand.objective)
                block = stand.block(variant, selection, chosen.get(variant.name))
                if selection is BlockChoice.L_FOCI:
                    chosen[variant.name] = block.size(stand.objective)
                yield from self._lines(stand, variant.name, selection.value, block)
        if any(self._key("all parameters", "full", one) not in known for one in DAMPINGS):
            yield from self._lines(stand, "all parameters", "full", Block(BlockChoice.FULL, None))

    def _lines(self, stand: _Stand, variant: str, selection: str, block: Block) -> Iterator[Line]:
        for damping, found in stand.updated(block).items():
            yield {
                "key": self._key(variant, selection, damping),
                "part": "blanket",
                "problem": self.problem.name,
                "size": self.size,
                "seed": self.seed,
                "strategy": f"{variant}, {selection}",
                "variant": variant,
                "selection": selection,
                "damping_factor": damping,
                "block_share": block.size(stand.objective) / stand.objective.space.d,
                "slices": len(block.slices),
                "columns": COLUMNS,
                **found,
            }


@dataclass(frozen=True)
class _Stand:
    """One removal, and the mean diagonal of the full curvature, which scales every damping."""

    reference: Reference
    data: DataSet
    sample: Samples
    scale: float
    seed: int

    @classmethod
    def of(cls, reference: Reference, data: DataSet, curvature_samples: int, seed: int) -> _Stand:
        retained = reference.retained
        order = torch.randperm(len(retained), generator=torch.Generator().manual_seed(seed))
        sample = retained.select(order[:curvature_samples])
        full = Restriction(reference.original.objective, reference.original.theta, None)
        # Its trace is that of the generalised Gauss-Newton matrix in the mean, at one gradient a sample.
        return cls(reference, data, sample, SampledFisher(full, sample).mean_diagonal(), seed)

    @property
    def objective(self) -> Objective:
        return self.reference.original.objective

    def block(self, variant: Variant, selection: BlockChoice, size: int | None) -> Block:
        by_l_foci = selection is BlockChoice.L_FOCI
        d = self.objective.space.d
        limit = None if variant.largest_share is None else max(1, int(variant.largest_share * d))
        return select_block(
            BlockChoice.L_FOCI_BATCH if by_l_foci and variant.batch else selection,
            self.objective,
            self.reference.original.theta,
            self.reference.removed,
            BlanketPlan(
                self.data.perturbation(variant.strength),
                variant.perturbations,
                union=UnionRule(min_share=variant.min_share),
            ),
            seed=self.seed,
            size=limit if by_l_foci else max(1, size or 0),
        )

    def updated(self, block: Block) -> dict[float, dict[str, object]]:
        """The figures for each damping; an empty block moves nothing."""
        started = time.perf_counter()
        theta = self.reference.original.theta
        if block.empty:
            return {one: self._figures(theta, started, "nothing selected") for one in DAMPINGS}
        restriction = Restriction(self.objective, theta, block.indices)
        removed = RemovedGradient.of(self.objective, theta, self.reference.removed)
        pull = (removed.total + removed.count * self.objective.l2 * theta) / len(self.reference.retained)
        system = SampledFisher(restriction, self.sample).system()
        found = {}
        for factor in DAMPINGS:
            try:
                step = system.solve(pull[restriction.indices], self.objective.l2 + factor * self.scale).x
            except NumericalError as error:
                found[factor] = {"failure": error.problem, "seconds": time.perf_counter() - started}
                continue
            found[factor] = self._figures(theta.index_add(0, restriction.indices, step), started, None)
        return found

    def _figures(self, theta: Tensor, started: float, failure: str | None) -> dict[str, object]:
        seconds = time.perf_counter() - started
        own = self.reference.of_update(theta, convex=False)
        before = self.reference.before.sets.forget.loss
        after = sum(one.sets.forget.loss for one in self.reference.targets) / len(self.reference.targets)
        forgotten = (float(str(own["forget_loss"])) - before) / (after - before) if after != before else None
        shared = self.reference.shared()
        kept = {key: shared[key] for key in ("m", "n", "d", "floor", "original_divergence")}
        return {**kept, **own, "forgotten": forgotten, "failure": failure, "seconds": seconds}


def blanket_works(problems: tuple[Problem, ...], *, quick: bool) -> list[BlanketStudy]:
    """On an image network; the grid compares the selections on the others."""
    if quick:
        return [BlanketStudy(one, "10", 0, QUICK_VARIANTS, 64) for one in problems[:1]]
    images = [one for one in problems if one.data is Data.FASHION][:1]
    return [
        BlanketStudy(one, size, seed, VARIANTS, 1024) for one in images for size in ("10", "100") for seed in range(3)
    ]
