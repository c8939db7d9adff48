"""Trained models, kept on disk: trainings are the cost of this benchmark, and many cases share one.

Axes: n samples, d parameters.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.unlearning.problems import Bench, digest
from benchmarks.unlearning.removals import Removal
from oubli.components.curvature.secant import Secant
from oubli.components.measures.evaluation import retained_gradient_norm
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.reference.secant import LastEpochs
from oubli.components.reference.training import fit_minibatch

VERSION = 1
"""Raised where a change of the code makes earlier trainings another's."""


@dataclass(frozen=True)
class Trained:
    """objective: of the trained module; theta (d,); seconds the training took; gradient: ||grad F||; the secant of a
    network's last two epochs, where it was asked for."""

    objective: Objective
    theta: Tensor
    seconds: float
    gradient: float
    secant: Secant | None


@dataclass(frozen=True)
class Trainings:
    """Models by (problem, removal set, seed), trained where the folder does not have them."""

    bench: Bench
    folder: Path

    def original(self, seed: int) -> Trained:
        """The model of all training samples."""
        return self._get("original", None, seed)

    def retrained(self, removal: Removal, seed: int) -> Trained:
        """The model of the retained samples, from an initialisation of its own."""
        return self._get(f"without-{removal.name}", removal, seed)

    def _get(self, name: str, removal: Removal | None, seed: int) -> Trained:
        problem = self.bench.problem
        removed = [] if removal is None else removal.positions.tolist()
        key = digest({"version": VERSION, "problem": problem.digest(), "removed": removed, "seed": seed})
        path = self.folder / problem.name / f"{name}-{seed}-{key}.safetensors"
        if not path.is_file():
            self._train(path, removal, seed)
        return self._read(path, seed)

    def _train(self, path: Path, removal: Removal | None, seed: int) -> None:
        samples = self.bench.data.train if removal is None else removal.retained
        module = self.bench.build(seed)
        started = time.perf_counter()
        watched = removal is None and not self.bench.problem.convex
        tensors: dict[str, Tensor] = {}
        if watched:
            tensors |= self._train_watched(module, samples, seed)
        else:
            self.bench.train(module, samples, seed)
        seconds = time.perf_counter() - started
        objective = self.bench.objective(module)
        tensors |= {f"state.{name}": value.contiguous() for name, value in module.state_dict().items()}
        facts = {"seconds": seconds, "gradient": retained_gradient_norm(objective, objective.theta(), samples)}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        save_file(tensors, partial, {"facts": json.dumps(facts)})
        partial.replace(path)

    def _train_watched(self, module: nn.Module, samples: Samples, seed: int) -> dict[str, Tensor]:
        """Train a network and record its secant; the second of the two gradients' passes counts as training's time."""
        problem = self.bench.problem
        assert problem.training is not None
        epochs = LastEpochs(module)
        fit_minibatch(
            module,
            samples,
            loss=cross_entropy,
            l2=problem.l2,
            seed=seed,
            **asdict(problem.training),
            on_epoch=epochs.record,
        )
        secant = epochs.secant(samples, cross_entropy)
        return {"secant.step": secant.step, "secant.change": secant.change}

    def _read(self, path: Path, seed: int) -> Trained:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            facts = json.loads(file.metadata()["facts"])
        module = self.bench.build(seed)
        module.load_state_dict(
            {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
        )
        objective = self.bench.objective(module.eval())
        secant = None
        if "secant.step" in tensors:
            dtype = objective.dtype
            secant = Secant(tensors["secant.step"].to(dtype), tensors["secant.change"].to(dtype))
        return Trained(objective, objective.theta(), facts["seconds"], facts["gradient"], secant)


def same(first: Tensor, second: Tensor) -> bool:
    """Bit for bit."""
    return first.dtype == second.dtype and torch.equal(first, second)
