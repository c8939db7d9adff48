"""What a run keeps: trained models, removal sets, and the outputs of every model on every cell.

    models/PROBLEM/SEED-DIGEST.pt         a trained network: `state`, `seconds`
    cells/PROBLEM/KIND/samples.pt         labels: U, V, test, R (a part of the retained samples), triggered
    cells/PROBLEM/KIND/MODEL.pt           a `Record`

A model is named by its training samples' content, its recipe and its seed: removal sets that leave the data alone share
their originals. Everything is written whole or not at all, so that a run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.unlearning.problems import Bench, RemovalKind, digest, train
from benchmarks.unlearning.removals import RemovalSet, content_of, removal_set
from oubli.components.model.samples import Samples

RETAINED_PART = 2000
"""Retained samples whose outputs are kept; accuracy on R is of all."""


@dataclass(frozen=True)
class Record:
    """One model on one cell.

    Attributes:
        outputs: Logits (k, C) on `U`, `V`, `test`, `R` and, where there is a backdoor, `triggered`; R is a part.
        accuracy: On all retained samples.
        facts: Whatever else is known of it: seconds, share of a training, relearning; `failed`, the error's words,
            where a method gave no model.
        digest: Of the settings that it was made with.
    """

    outputs: Mapping[str, Tensor]
    accuracy: float
    facts: Mapping[str, object]
    digest: str


@dataclass(frozen=True)
class Store:
    """The folder of everything that is kept."""

    folder: Path

    def trained(self, bench: Bench, samples: Samples, seed: int) -> nn.Module:
        """The problem's network, trained on the samples from that seed; it is trained where the folder lacks it."""
        key = digest([bench.problem.training_digest, content_of(samples), seed])
        path = self.folder / "models" / bench.problem.name / f"{seed}-{key}.pt"
        module = bench.build(seed)
        if not path.is_file():
            started = time.process_time()
            # Half as quick again as the layout that methods, and the epoch that they are measured by, run in.
            train(module.to(memory_format=torch.channels_last), samples, bench.problem.recipe, seed=seed)
            save(path, {"state": module.state_dict(), "seconds": time.process_time() - started})
            module = bench.build(seed)
        module.load_state_dict(torch.load(path)["state"])
        return module.eval()

    def removal(self, bench: Bench, kind: RemovalKind) -> RemovalSet:
        """The removal set; models that it is chosen by are kept as any others."""
        return removal_set(bench, kind, lambda samples, seed: self.trained(bench, samples, seed))

    def cell(self, problem: str, kind: RemovalKind) -> Cell:
        return Cell(self.folder / "cells" / problem / kind.value)


@dataclass(frozen=True)
class Cell:
    """The records of one removal set of one problem."""

    folder: Path

    def names(self) -> list[str]:
        """Of the models that there are records of."""
        return sorted(path.stem for path in self.folder.glob("*.pt") if path.stem != "samples")

    def read(self, name: str) -> Record | None:
        path = self.folder / f"{name}.pt"
        return Record(**torch.load(path)) if path.is_file() else None

    def write(self, name: str, record: Record) -> None:
        save(self.folder / f"{name}.pt", vars(record))

    def labels(self) -> dict[str, Tensor]:
        """By sample set."""
        found: dict[str, Tensor] = torch.load(self.folder / "samples.pt")
        return found


def sample_sets(bench: Bench, removal: RemovalSet) -> dict[str, Samples]:
    """What outputs are recorded on, by name."""
    retained = removal.retained
    order = torch.randperm(len(retained), generator=torch.Generator().manual_seed(0))
    part = retained.select(order[:RETAINED_PART].sort().values)
    found = {"U": removal.removed, "V": bench.held_out, "test": bench.test, "R": part}
    return found if removal.triggered is None else {**found, "triggered": removal.triggered}


def save(path: Path, value: object) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    torch.save(value, partial)
    partial.replace(path)
