"""Removal by matching: the model is moved to where it says on the removed samples what retraining would.

Axes: n training samples, m of them removed, d trained parameters, d_P of them in a block P, u and r samples of a batch.

Each step minimises, over a batch of u removed and r retained samples,

    mean over the u of D(T || f(x)) + mean over the r of D(f0 || f(x)),     D = KL + mse / 2 (`output_families`),

T being the targets (`targets`) and f0 the original model's outputs, kept as a table. Half of the r samples are drawn
uniformly, half in proportion to their hardness. The removed samples are all that were removed since training, and the
teacher on the others is always the model as it was trained: then nothing accumulates over a chain of removals, where
matching each batch alone drifts (KL on R .226 against .061 after five batches).

Trained batch normalisation uses each batch's statistics while the model moves, and its running statistics follow;
dropout is off. On a block, all else stays bit for bit, so statistics do, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.model.state import ModelState, buffers_of, moving_buffers, with_moving_statistics
from oubli.components.progress import Progress
from oubli.components.removal.descent import Checkpoints, Descent, cosine
from oubli.components.removal.output_families import OutputFamily, output_family

MANY = 100
"""Removed samples from which on the rate no longer rises."""


@dataclass(frozen=True)
class MatchingPlan:
    """How the model is moved.

    Defaults: the project's method, section 8, step 5, measured on small image networks with 1 to 100 samples removed;
    the idea of matching predicted outputs is Georgiev et al.'s (ICLR 2025).

    Attributes:
        steps: Adam steps. 25 forget nearly as much as 50, which leave less drift on the retained samples.
        removed_batch: Removed samples of a batch at most.
        uniform_batch: Retained samples of a batch that are drawn uniformly.
        hard_batch: Retained samples of a batch that are drawn in proportion to their hardness.
        rate_of_one: The first learning rate where one sample is removed; it falls to 0 along a half cosine.
        rate_of_many: The same for MANY samples and more.
        betas: Adam's.
    """

    steps: int = 50
    removed_batch: int = 50
    uniform_batch: int = 50
    hard_batch: int = 50
    rate_of_one: float = 2e-4
    rate_of_many: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        counts = self.steps >= 1 and self.removed_batch >= 1 and self.uniform_batch >= 1 and self.hard_batch >= 0
        if not (counts and self.rate_of_one > 0 and self.rate_of_many > 0):
            raise ConfigurationError(
                f"{self}: counts and rates must be positive (hard_batch may be 0).",
                remedy="Leave them out for the defaults.",
            )

    def rate(self, m: int, share: float = 1.0) -> float:
        """The first learning rate for m removed samples, where a share of the parameters moves.

        It must go with m: 2e-4 for one sample, 2e-3 for a hundred were measured. Between them the logarithm of the rate
        is interpolated linearly in log m, so that it grows as the square root of m; beyond, it stays.

        On a block it grows as 1 / sqrt(share), so that Adam's steps are as long as on all parameters. At the rate of
        all, one sample's Markov blanket was left at a KL of 2.4 where doing nothing has 2.8 and this rate .14.
        """
        between = min(1.0, math.log(m) / math.log(MANY))
        of_all = self.rate_of_one * math.pow(self.rate_of_many / self.rate_of_one, between)
        return of_all / math.sqrt(share)


@dataclass(frozen=True)
class MatchingData:
    """The samples, and what they are moved to.

    Inputs lie on one device, and so do targets and teacher; batches are moved to the objective's.

    Attributes:
        removed: All m samples removed since training; their labels are not used.
        targets: (m, ...) outputs to reach on them (`removal_targets`).
        retained: All n - m samples that are left; their labels are not used.
        teacher: (n - m, ...) raw outputs on them of the model as it was trained.
        hardness: (n - m,) weights that the hard half is drawn by (`targets.hardness`).
    """

    removed: Samples
    targets: Tensor
    retained: Samples
    teacher: Tensor
    hardness: Tensor

    def __post_init__(self) -> None:
        counts = (len(self.removed), len(self.targets), len(self.retained), len(self.teacher), len(self.hardness))
        if counts[0] != counts[1] or not counts[2] == counts[3] == counts[4] or 0 in counts:
            raise ConfigurationError(
                f"{counts[0]} removed samples with {counts[1]} targets, {counts[2]} retained ones with {counts[3]} "
                f"outputs and {counts[4]} weights; each must have one, and both sets at least one sample.",
                remedy="Drop the rows of what is removed from the table of the original model's outputs.",
            )
        if not all(bool(torch.isfinite(one).all()) for one in (self.targets, self.teacher, self.hardness)):
            raise NonFiniteInput(
                "Targets, outputs or weights are NaN or infinite.", remedy="Check the surrogate and the original model."
            )
        if bool((self.hardness < 0).any()) or not bool((self.hardness > 0).any()):
            raise ConfigurationError(
                "Weights of the retained samples are negative, or all 0.", remedy="Pass `hardness`, or ones."
            )


def match_targets(
    objective: Objective,
    theta: Tensor,
    data: MatchingData,
    plan: MatchingPlan,
    *,
    seed: int,
    block: Tensor | None = None,
    checkpoints: Checkpoints | None = None,
    on_progress: Progress | None = None,
) -> ModelState:
    """Move a model to its targets on the removed samples, and hold it where it was on the retained ones.

    Args:
        objective: The model's, with its present buffers; neither it nor `theta` is changed.
        theta: (d,) the present weights, of the original model or as earlier removals left them.
        data: Samples, targets and the teacher's outputs.
        plan: Steps, batches and rates.
        seed: Fixes the draws of the batches.
        block: Sorted flat indices (d_P,) of the parameters that may move; None for all that are trained. With a block,
            statistics of batch normalisation stay.
        checkpoints: A unit is a step.

    Returns:
        The weights, and the buffers in the scope of training.

    Raises:
        ConfigurationError: The loss has no calibration, the block is no index set, or a state is another run's.
        NonFiniteInput: The weights are not finite.
        NumericalError: The steps diverge.
    """
    objective.check(theta)
    checkpoints = checkpoints or Checkpoints()
    family = output_family(objective.loss, data.teacher)
    running = with_moving_statistics(objective) if block is None else objective
    outputs, start, finish = _movement(running, theta, block)
    own = dict(running.module.named_buffers())
    moving = {} if running is objective else {name: own[name] for name in moving_buffers(running)}
    draw = _Draws(data, plan)
    values = start.detach().clone().requires_grad_(True)
    descent = Descent(
        values,
        torch.optim.Adam([values], lr=0.0, betas=plan.betas),
        moving,
        torch.Generator().manual_seed(seed),
        (seed, plan.steps, len(data.removed), len(data.retained)),
    )
    if checkpoints.resume is not None:
        descent.restore(checkpoints.resume)
    rate = plan.rate(len(data.removed), len(start) / len(theta))
    while descent.done < plan.steps:
        loss = _loss(family, running, draw.batch(descent.draws), lambda inputs: outputs(values, inputs))
        descent.step(loss, rate * cosine(descent.done, plan.steps))
        if checkpoints.save is not None and (descent.done % checkpoints.every == 0 or descent.done == plan.steps):
            checkpoints.save(descent.state())
        if on_progress is not None:
            on_progress(descent.done / plan.steps)
    descent.check_finite("Lower the plan's rates.")
    return ModelState(finish(values.detach()), buffers_of(running))


Outputs = Callable[[Tensor, Tensor], Tensor]
"""(values (v,), prepared inputs (b, ...)) -> outputs (b, ...)."""


def _movement(
    running: Objective, theta: Tensor, block: Tensor | None
) -> tuple[Outputs, Tensor, Callable[[Tensor], Tensor]]:
    """The outputs as a function of what moves, where it starts, and all weights (d,) from where it ends."""
    if block is None:
        return lambda values, inputs: running.outputs(running.space.unflatten(values), inputs), theta, torch.clone
    restriction = Restriction(running, theta, block)
    return restriction.outputs, restriction.values, lambda values: theta.index_copy(0, restriction.indices, values)


@dataclass(frozen=True)
class _Batch:
    """u removed samples first, then r retained ones: inputs (u + r, ...), what they are moved to, and u."""

    inputs: Tensor
    teacher: Tensor
    removed: int


@dataclass
class _Draws:
    """Batches of removed and retained samples."""

    data: MatchingData
    plan: MatchingPlan

    def __post_init__(self) -> None:
        # Inverse sampling takes a logarithmic search; torch.multinomial refuses more than 2^24 weights.
        self.cumulated = self.data.hardness.to("cpu", torch.float64).cumsum(0)

    def batch(self, generator: torch.Generator) -> _Batch:
        data, plan = self.data, self.plan
        removed = torch.randperm(len(data.removed), generator=generator)[: plan.removed_batch]
        uniform = torch.randint(len(data.retained), (plan.uniform_batch,), generator=generator)
        points = torch.rand(plan.hard_batch, generator=generator, dtype=torch.float64) * self.cumulated[-1]
        hard = torch.searchsorted(self.cumulated, points, right=True).clamp(max=len(data.retained) - 1)
        retained = torch.cat([uniform, hard])
        inputs = torch.cat([_rows(data.removed.inputs, removed), _rows(data.retained.inputs, retained)])
        teacher = torch.cat([_rows(data.targets, removed), _rows(data.teacher, retained)])
        return _Batch(inputs, teacher, len(removed))


def _rows(tensor: Tensor, indices: Tensor) -> Tensor:
    return tensor[indices.to(tensor.device)]


def _loss(family: OutputFamily, running: Objective, batch: _Batch, outputs: Callable[[Tensor], Tensor]) -> Tensor:
    """The batch's loss, a scalar."""
    prepared = running.prepare(Samples(batch.inputs, batch.teacher))
    found = outputs(prepared.inputs)
    if found.shape != prepared.labels.shape:
        raise ConfigurationError(
            f"The model's outputs have shape {tuple(found.shape)}, their targets {tuple(prepared.labels.shape)}.",
            remedy="Pass targets and outputs of this architecture.",
        )
    distances = family.distance(prepared.labels, found)
    return distances[: batch.removed].mean() + distances[batch.removed :].mean()
