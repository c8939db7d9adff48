"""A plan before the work: the ways that a removal will try, what each costs, and what may refuse it.

Axes: n training samples, r retained samples, m removed samples, k held-out and t test samples, d parameters.

Costs are counted in passes (`costs`) and turned into seconds by what the model's own training took; nothing is run.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from oubli.components.gate.ranks import NEIGHBOURS
from oubli.components.removal.matching import MatchingPlan
from oubli.flows.job.costs import FORWARD_AND_BACKWARD, blanket_extent, training_passes
from oubli.flows.job.facts import AUDITORS
from oubli.flows.job.original import MOST_RETAINED
from oubli.flows.job.request import Request
from oubli.flows.job.surrogates import matching_plan, samples_seen, surrogate_plan
from oubli.flows.job.ways import audited, why
from oubli.registry.models.origin import origin_of
from oubli.registry.models.tags import Metric
from oubli.registry.removals.unlearn_config import UnlearnConfig, Way, WhenRefused
from oubli.registry.training.how_trained import HowTrained, SettingsSource, how_trained
from oubli.registry.training.training_record import Split

_COPIES = 6
"""Of the parameters: the original's and the new ones, a gradient, two moments of an optimiser, a spare."""


class _Plan(BaseModel):
    model_config = ConfigDict(frozen=True)


class WayPlan(_Plan):
    """One way.

    Attributes:
        why: Why it is tried, in words.
        passes: What it costs, in forward passes of one sample; None where that cannot be counted before.
        seconds: The same by what training took; None where that is not known.
        memory_bytes: Of samples and weights, about.
        may_refuse: What may refuse it, each a sentence.
    """

    way: Way
    why: str
    passes: int | None
    seconds: float | None
    memory_bytes: int
    may_refuse: tuple[str, ...]

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Way, why, cost and what may refuse it, as a table shows them."""
        return self.way.value, self.why, self.cost, " ".join(self.may_refuse) or "nothing"

    @property
    def cost(self) -> str:
        """Seconds and memory, in words."""
        memory = f"{self.memory_bytes / 2**20:.0f} MiB"
        if self.seconds is None:
            return f"time unknown, {memory}"
        # The solver of a Newton step passes over the data as often as it must.
        least = "at least " if self.way is Way.NEWTON else ""
        return f"{least}{self.seconds:.1f} s, {memory}"


class Plan(_Plan):
    """What a removal will do.

    Attributes:
        removed: Samples that it takes.
        removed_before: Samples that the parent lacks already.
        trained_seconds: What training the model took; None where nobody recorded it.
        settings: How training's settings are known.
        ways: In the order in which they are tried; empty where no requested sample is left.
        then: What follows where all are refused, in words.
    """

    model: str
    parent_version: str
    removed: int
    removed_before: int
    trained_seconds: float | None
    settings: SettingsSource
    ways: tuple[WayPlan, ...]
    then: str

    @property
    def tried(self) -> tuple[Way, ...]:
        """The ways alone. Where no sample is left, `fetch` says so whatever the way."""
        return tuple(each.way for each in self.ways) or (Way.NEWTON,)


class Sizes(_Plan):
    """What a plan is computed from.

    Attributes:
        row_bytes: Of one decoded sample.
        parameter_bytes: Of all d parameters.
    """

    n: int
    r: int
    m: int
    k: int
    t: int
    row_bytes: int
    parameter_bytes: int


def plan(request: Request, config: UnlearnConfig) -> Plan:
    """The plan of a request. Nothing is trained, and no sample passes through the model."""
    sizes, how, trained = _sizes(request), how_trained(request.recipe.record), _trained_seconds(request)
    nothing = not request.resolved.new_ids
    return Plan(
        model=request.parent.name,
        parent_version=request.parent.version,
        removed=sizes.m,
        removed_before=len(request.before),
        trained_seconds=trained,
        settings=how.source,
        ways=() if nothing else tuple(_way(way, request, config, sizes, how, trained) for way in request.ways),
        then=_then(config),
    )


def passes(way: Way, config: UnlearnConfig, how: HowTrained, sizes: Sizes, *, convex: bool, audit: bool) -> int | None:
    """What a way costs, in forward passes of one sample, measuring and judging included.

    None for a convex model, whose training and update are iterations until a tolerance is met.
    """
    if convex:
        return None
    retraining = training_passes(how.settings.epochs, sizes.r)
    if way is Way.RETRAIN:
        return retraining + sizes.r + sizes.t
    both_models = 2 * (FORWARD_AND_BACKWARD * sizes.r + sizes.r + sizes.t + sizes.m)
    total = FORWARD_AND_BACKWARD * sizes.m + blanket_extent(config, sizes.m, retraining).passes + both_models
    surrogate = FORWARD_AND_BACKWARD * samples_seen(surrogate_plan(how.settings, config), sizes.r)
    if audit:
        total += len(AUDITORS) * (surrogate + sizes.m + sizes.k) + sizes.k
    if way is Way.NEWTON:
        # The gradient and the curvature of one step; how often its solver comes back is seen then.
        return total + 2 * FORWARD_AND_BACKWARD * sizes.r
    table = min(sizes.r, MOST_RETAINED)
    return total + surrogate + 2 * (table + sizes.k) + sizes.m + _step_passes(matching_plan(config), sizes.m)


def _step_passes(steps: MatchingPlan, m: int) -> int:
    batch = min(steps.removed_batch, m) + steps.uniform_batch + steps.hard_batch
    return FORWARD_AND_BACKWARD * steps.steps * batch


def _way(
    way: Way, request: Request, config: UnlearnConfig, sizes: Sizes, how: HowTrained, trained: float | None
) -> WayPlan:
    recipe = request.recipe
    convex = recipe.record.convex
    counted = passes(way, config, how, sizes, convex=convex, audit=audited(recipe))
    seconds = None
    if trained is not None:
        share = sizes.r / sizes.n if counted is None else counted / training_passes(how.settings.epochs, sizes.n)
        seconds = trained * share if counted is not None or way is Way.RETRAIN else None
    return WayPlan(
        way=way,
        why=why(way, config, recipe),
        passes=counted,
        seconds=seconds,
        memory_bytes=sizes.n * sizes.row_bytes + _COPIES * sizes.parameter_bytes,
        may_refuse=_may_refuse(way, sizes, how, convex=convex),
    )


def _may_refuse(way: Way, sizes: Sizes, how: HowTrained, *, convex: bool) -> tuple[str, ...]:
    if way is Way.RETRAIN:
        return ()
    found = []
    if way is Way.NEWTON and not convex:
        found.append("Most networks are too far from a minimum for a Newton step to forget.")
    if way is Way.NEWTON and convex:
        found.append("Test figures that fall by more than the limits allow.")
    if way is Way.MATCHING and how.source is SettingsSource.ASSUMED:
        found.append(
            "Training's settings are assumed, and a surrogate at the wrong rate predicts nothing: record them."
        )
    if not convex and sizes.k < NEIGHBOURS:
        found.append(f"Only {sizes.k} held-out samples to judge by.")
    if not convex:
        found.append("Auditors that find the removed samples told otherwise than by one who never saw them.")
    return tuple(found)


def _then(config: UnlearnConfig) -> str:
    match config.when_refused:
        case WhenRefused.REPORT:
            return "the refusal is reported"
        case WhenRefused.RETRAIN:
            return "the recipe is run again without the samples"
        case WhenRefused.RETRAIN_WARM:
            return "the recipe is run again without the samples, from the version's weights"


def _sizes(request: Request) -> Sizes:
    n, m = len(request.data.ids()), len(request.resolved.new_ids)
    row = next(iter(request.data.samples(Split.TRAIN).batches(1)))
    module = request.recipe.untrained()
    return Sizes(
        n=n,
        r=n - m - len(request.before),
        m=m,
        k=0 if request.held_out.held_out is None else len(request.held_out.held_out),
        t=len(request.held_out.test),
        row_bytes=row.inputs.nbytes + row.labels.nbytes,
        parameter_bytes=sum(parameter.nbytes for parameter in module.parameters()),
    )


def _trained_seconds(request: Request) -> float | None:
    """What training the lineage's origin took, as its run says."""
    origin = origin_of(request.registry, request.parent)
    if origin is None or origin.run_id is None:
        return None
    seconds = request.registry.client.get_run(origin.run_id).data.metrics.get(Metric.SECONDS)
    return seconds if seconds is not None and math.isfinite(seconds) else None
