"""What is run: selections, then what each block does where it alone moves. One JSON line each.

Axes: m removed samples, p slices, d_P parameters of a block.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.blanket.evidence import moved_more, movement
from benchmarks.blanket.moving import Stand
from benchmarks.blanket.problem import OUTPUT_LAYER, Problem, Scale, first
from benchmarks.blanket.selecting import Candidates, Response, Selector
from oubli.components.blocks.choosing import BlockChoice, select_block
from oubli.components.errors import NumericalError
from oubli.components.model.samples import Samples

Line = Mapping[str, object]

POWERS = (0.0, 0.5, 0.75)
"""A block's rate is the plan's times (d / d_P) to this power; at 1/2, Adam's steps are as long as on all parameters."""

DAMPINGS, DAMPINGS_OF_ALL = (3e-3, 3e-2), (3e-2, 1e-1)
"""With less, steps on all parameters diverge."""

PUBLISHED, BY_LAYER, OUTPUT, ALL = "loss/all slices", "loss/layer by layer", "output layer", "all"
WAYS = (
    PUBLISHED,
    "loss/without output layer",
    BY_LAYER,
    "margin/all slices",
    "alignment/all slices",
    "alignment/layer by layer",
    "feature/all slices",
)
"""Selections that are tried as the place to move."""

NEWTON = (PUBLISHED, BY_LAYER, OUTPUT, "random, as published", "top gradient, as published", ALL)
"""The ways that are tried with Newton steps, too."""


@dataclass
class Cases:
    """Finished cases, a JSON line each, so that a run that was broken off goes on where it stopped."""

    path: Path
    lines: dict[str, Line] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        known = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        self.lines = {line["key"]: line for line in map(json.loads, known)}

    def add(self, key: str, line: Line) -> None:
        self.lines[key] = {"key": key, **line}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.lines[key]) + "\n")


def retained_of_equal_label(removed: Samples, retained: Samples) -> Samples:
    """For each of the removed samples, another retained one with its label."""
    order = torch.randperm(len(retained), generator=torch.Generator().manual_seed(1)).tolist()
    taken: list[int] = []
    for label in removed.labels.tolist():
        own = (one for one in order if int(retained.labels[one]) == label and one not in taken)
        taken.append(next(own))
    return retained.select(torch.tensor(taken))


def run_selections(problem: Problem, original: int, cases: Cases) -> None:
    """Every sample's selections, of removed samples with two seeds: {response/candidates: positions of slices}."""
    scale = problem.scale
    selector = Selector.of(problem.original(original), problem.removed.inputs)
    removed = first(problem.removed, scale.looked_at)
    kinds = {"removed": removed, "retained": retained_of_equal_label(removed, problem.retained)}
    for kind, samples in kinds.items():
        for place in range(scale.looked_at):
            for seed in (0, 1) if kind == "removed" else (0,):
                key = f"select {original} {kind} {place} {seed}"
                if key not in cases.lines:
                    sample = samples.select(torch.tensor([place]))
                    cases.add(key, _selected(selector, sample, scale, seed, 1000 * seed + place))


def _selected(selector: Selector, sample: Samples, scale: Scale, seed: int, copies_seed: int) -> Line:
    record = selector.record(sample, scale.copies, copies_seed)
    chosen = {
        f"{response.value}/{candidates.value}": selector.select(record, response, candidates, seed=seed)
        for response in Response
        for candidates in Candidates
    }
    for copies in scale.fewer:
        chosen[f"{PUBLISHED}/{copies}"] = selector.select(
            record, Response.LOSS, Candidates.ALL, seed=seed, copies=copies
        )
    return {"chosen": chosen, "seconds": record.seconds}


@dataclass(frozen=True)
class Selections:
    """The selections of the samples that were looked at, on one original model."""

    scale: Scale
    original: int
    cases: Cases

    def of(self, kind: str, seed: int, name: str) -> list[tuple[int, ...]]:
        keys = (f"select {self.original} {kind} {place} {seed}" for place in range(self.scale.looked_at))
        return [tuple(self.cases.lines[key]["chosen"][name]) for key in keys]  # type: ignore[index]

    def union(self, places: range, name: str) -> set[int]:
        chosen = self.of("removed", 0, name)
        return {one for place in places for one in chosen[place]}


def removal_sets(scale: Scale) -> Iterator[tuple[int, range, range]]:
    """m, places of the removed samples, and of those whose selections make the block."""
    for place in range(scale.singles):
        yield 1, range(place, place + 1), range(place, place + 1)
    for start in range(0, scale.looked_at - scale.tens + 1, scale.tens):
        yield scale.tens, range(start, start + scale.tens), range(start, start + scale.tens)
    yield scale.removed, range(scale.removed), range(scale.looked_at)


def run_moves(problem: Problem, original: int, cases: Cases) -> None:
    """Every way to choose what moves, on every removal set."""
    stand = Stand.of(problem, original)
    selector = Selector.of(stand.objective, problem.removed.inputs)
    selections = Selections(problem.scale, original, cases)
    for m, removed, selected in removal_sets(problem.scale):
        places = torch.tensor(list(removed))
        for way, block in _blocks(stand, selector, selections, places, selected).items():
            for step, setting in _settings(way):
                key = f"move {original} {m} {removed.start} {way} {step} {setting}"
                if key not in cases.lines:
                    facts = {"original": original, "m": m, "first": removed.start, "way": way, "step": step}
                    moved = _moved(stand, selector, places, selections.union(selected, PUBLISHED), block, step, setting)
                    cases.add(key, {**facts, "setting": setting, **moved})


def _settings(way: str) -> list[tuple[str, float]]:
    """Kinds of step, each with its power of the rate or its damping."""
    powers = {"nothing": (0.0,), ALL: (0.0,), PUBLISHED: POWERS, OUTPUT: POWERS}.get(way, (0.5,))
    dampings = (DAMPINGS_OF_ALL if way == ALL else DAMPINGS) if way in NEWTON else ()
    return [*(("matching", power) for power in powers), *(("newton", damping) for damping in dampings)]


def _moved(
    stand: Stand,
    selector: Selector,
    places: Tensor,
    published: set[int],
    block: Tensor | None,
    step: str,
    setting: float,
) -> Line:
    size = len(stand.theta) if block is None else len(block)
    facts = {"floor": stand.floor(places), "parameters": size}
    if size == 0:
        return {**facts, **stand.judged(None, places), "seconds": 0.0}
    seed = int(places[0])
    try:
        made = stand.newton if step == "newton" else stand.matched
        state, seconds = made(places, block, seed, setting)
    except NumericalError as error:
        return {**facts, "failure": error.problem}
    judged = stand.judged(state, places)
    if not all(map(math.isfinite, judged.values())):
        return {**facts, "failure": "Figures are not finite."}
    found: dict[str, object] = {**facts, **judged, "seconds": seconds}
    if block is None and step == "matching":
        movements = movement(selector.slices, state.theta - stand.theta)
        found["moved"] = moved_more(selector.slices, movements, tuple(published), seed)
    return found


def _blocks(
    stand: Stand, selector: Selector, selections: Selections, places: Tensor, selected: range
) -> dict[str, Tensor | None]:
    """What moves, by name; None for all parameters."""
    slices = selector.slices

    def of_size(choice: BlockChoice, size: int) -> Tensor | None:
        removed = stand.problem.removed.select(places)
        return select_block(
            choice, stand.objective, stand.theta, removed, seed=int(places[0]), size=max(1, size)
        ).indices

    blocks: dict[str, Tensor | None] = {"nothing": torch.empty(0, dtype=torch.int64), ALL: None}
    for way in WAYS:
        blocks[way] = slices.indices(selector.chosen(selections.union(selected, way)))
    output = slices.only([OUTPUT_LAYER])
    blocks[OUTPUT] = output.indices(output.slices)
    for name, like in (("as published", PUBLISHED), ("as layer by layer", BY_LAYER)):
        size = len(blocks[like])  # type: ignore[arg-type]
        blocks[f"random, {name}"] = of_size(BlockChoice.RANDOM, size)
        blocks[f"top gradient, {name}"] = of_size(BlockChoice.TOP_GRADIENT, size)
    return blocks
