"""Which training samples are removed, and what was done to them before.

Axes: n training samples, m removed samples, C classes.

| set | what |
|---|---|
| random | m at random |
| mislabelled | m at random, given another class before training |
| mislabelled-few | a few of those: the others stay in the training set, mislabelled |
| memorised | the m whose loss falls most where a model has seen them: two models, each trained on one half |
| cluster | a sample of a class and its nearest of that class, by the features of an original model |
| backdoor | the positions of `random`, with a bright corner and one class for all of them |
| half-class | half of the samples of one class |
| owners | whole owners (contracts) in a random order, until about m |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.unlearning.problems import Bench, RemovalKind
from oubli.components.model.samples import Samples

TARGET = 0
"""The class that a backdoor leads to."""

TRIGGERED = 1000
"""The most test images that a backdoor is tried on."""

SEEDS = {kind: 100 * (place + 1) for place, kind in enumerate(RemovalKind)}
"""Of each set's draws; `backdoor` takes the positions of `random`, so that both share their retrained models."""


@dataclass(frozen=True)
class RemovalSet:
    """train: all n samples as the original models see them; positions: sorted (m,) of those that are removed;
    triggered: test images of other classes with a backdoor's trigger, labelled with its class, None without one."""

    kind: RemovalKind
    train: Samples
    positions: Tensor
    triggered: Samples | None = None

    @property
    def retained_positions(self) -> Tensor:
        keep = torch.ones(len(self.train), dtype=torch.bool)
        keep[self.positions] = False
        return keep.nonzero().flatten()

    @property
    def removed(self) -> Samples:
        return self.train.select(self.positions)

    @property
    def retained(self) -> Samples:
        return self.train.select(self.retained_positions)


def content_of(samples: Samples) -> str:
    """Sixteen hexadecimal digits of SHA-256 over inputs and labels."""
    found = hashlib.sha256(samples.inputs.contiguous().numpy().tobytes())
    found.update(samples.labels.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


Trained = Callable[[Samples, int], nn.Module]
"""(samples, seed) -> a network of the problem, trained on them."""


def removal_set(bench: Bench, kind: RemovalKind, trained: Trained) -> RemovalSet:
    """The set of that kind; `trained` is asked for models where the set is chosen by them."""
    train, many = bench.train, bench.problem.many
    generator = torch.Generator().manual_seed(SEEDS[kind])
    match kind:
        case RemovalKind.RANDOM:
            return RemovalSet(kind, train, _draw(len(train), many))
        case RemovalKind.MISLABELLED | RemovalKind.MISLABELLED_FEW:
            return _mislabelled(bench, kind)
        case RemovalKind.MEMORISED:
            return RemovalSet(kind, train, _memorised(train, many, trained))
        case RemovalKind.CLUSTER:
            return RemovalSet(kind, train, _cluster(train, many, trained(train, 0), generator))
        case RemovalKind.BACKDOOR:
            return _backdoor(bench)
        case RemovalKind.HALF_CLASS:
            members = (train.labels == bench.classes // 2).nonzero().flatten()
            half = members[torch.randperm(len(members), generator=generator)][: len(members) // 2]
            return RemovalSet(kind, train, half.sort().values)
        case RemovalKind.OWNERS:
            assert bench.owner is not None
            return RemovalSet(kind, train, _whole_owners(bench.owner, many, generator))


def _draw(n: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEEDS[RemovalKind.RANDOM])
    return torch.randperm(n, generator=generator)[:count].sort().values


def _mislabelled(bench: Bench, kind: RemovalKind) -> RemovalSet:
    train, many = bench.train, bench.problem.many
    generator = torch.Generator().manual_seed(SEEDS[RemovalKind.MISLABELLED])
    chosen = torch.randperm(len(train), generator=generator)[:many].sort().values
    labels = train.labels.clone()
    labels[chosen] = (labels[chosen] + torch.randint(1, bench.classes, (many,), generator=generator)) % bench.classes
    if kind is RemovalKind.MISLABELLED_FEW:
        chosen = chosen[torch.randperm(many, generator=generator)[: bench.problem.few]].sort().values
    return RemovalSet(kind, Samples(train.inputs, labels), chosen)


def _memorised(train: Samples, many: int, trained: Trained) -> Tensor:
    """Feldman and Zhang (NeurIPS 2020) with one model on either side: loss without, less loss with, the sample."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SEEDS[RemovalKind.MEMORISED]))
    halves = order[: len(order) // 2].sort().values, order[len(order) // 2 :].sort().values
    losses = [_losses(trained(train.select(half), 0), train) for half in halves]
    first = torch.zeros(len(train), dtype=torch.bool)
    first[halves[0]] = True
    gap = torch.where(first, losses[1] - losses[0], losses[0] - losses[1])
    return gap.argsort(descending=True, stable=True)[:many].sort().values


def _losses(module: nn.Module, samples: Samples) -> Tensor:
    with torch.no_grad():
        outputs = torch.cat([module(batch.inputs) for batch in samples.batches(500)])
    return nn.functional.cross_entropy(outputs, samples.labels, reduction="none")


def _cluster(train: Samples, many: int, module: nn.Module, generator: torch.Generator) -> Tensor:
    """A sample at random and its nearest neighbours of its own class."""
    features = _features(module, train)
    centre = int(torch.randint(len(train), (), generator=generator))
    distances = (features - features[centre]).norm(dim=1)
    distances[train.labels != train.labels[centre]] = float("inf")
    return distances.argsort(stable=True)[:many].sort().values


def _features(module: nn.Module, samples: Samples) -> Tensor:
    """What the last linear layer is given, (n, ...)."""
    layer = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
    found: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    with torch.no_grad():
        for batch in samples.batches(500):
            module(batch.inputs)
    hook.remove()
    return torch.cat(found)


def _backdoor(bench: Bench) -> RemovalSet:
    """BadNets (Gu et al. 2017): a patch in a corner, and one label."""
    train, test = bench.train, bench.test
    chosen = _draw(len(train), bench.problem.many)
    inputs, labels = train.inputs.clone(), train.labels.clone()
    patch = float(train.inputs.max())
    inputs[chosen], labels[chosen] = _with_patch(inputs[chosen], patch), TARGET
    others = (test.labels != TARGET).nonzero().flatten()[:TRIGGERED]
    triggered = Samples(_with_patch(test.inputs[others], patch), torch.full_like(test.labels[others], TARGET))
    return RemovalSet(RemovalKind.BACKDOOR, Samples(inputs, labels), chosen, triggered)


def _with_patch(images: Tensor, value: float) -> Tensor:
    changed = images.clone()
    changed[..., -3:, -3:] = value
    return changed


def _whole_owners(owner: Tensor, many: int, generator: torch.Generator) -> Tensor:
    """Owners in random order, each taken if that brings the count nearer to `many`; the smallest if none does."""
    counts = torch.bincount(owner)
    present = counts.nonzero().flatten()
    order = present[torch.randperm(len(present), generator=generator)]
    taken: list[int] = []
    total = 0
    for number in order.tolist():
        count = int(counts[number])
        if abs(total + count - many) < abs(total - many):
            taken.append(number)
            total += count
    if not taken:
        taken = [int(order[counts[order].argmin()])]
    return torch.isin(owner, torch.tensor(taken)).nonzero().flatten()
