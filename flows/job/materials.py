"""What the numeric stages of one job work on, loaded from the registry, the object store and the work area."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.parquet as pq
from torch import Tensor, nn

from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot
from oubli.components.model.frozen_head import FrozenHead, frozen_head
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples, SampleSource
from oubli.flows.job.account import Account
from oubli.flows.job.choices import Choices
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import experiment_for
from oubli.registry.models.snapshots import load_snapshot
from oubli.registry.models.weights import load_weights, weights_digest
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.settings import Settings
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_data import ParquetSamples, TrainingData
from oubli.registry.training.training_record import Split

# Keeps the draw of a subset apart from what else the job's seed is used for.
_SUBSET = 1


@dataclass(frozen=True)
class Materials:
    """Model, data and removal set of one job. Each part is read when it is first asked for."""

    settings: Settings
    job: RemovalJob

    @cached_property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(self.settings)

    @cached_property
    def parent(self) -> RegisteredVersion:
        return self.registry.version(self.job.model, self.job.parent_version)

    @cached_property
    def experiment_id(self) -> str:
        """The parent's MLflow experiment."""
        return experiment_for(self.registry, self.job.model, self.parent)

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.of(self.registry.training_record(self.parent), self.settings)

    @cached_property
    def choices(self) -> Choices:
        return Choices(self.job.config, self.recipe.record)

    @cached_property
    def account(self) -> Account:
        """What was removed since the parent's lineage was trained, this removal included."""
        return Account(
            self.registry, self.parent, self.data, self.job, self.choices, frozenset(self.earlier), self.new_ids
        )

    @cached_property
    def snapshot(self) -> CurvatureSnapshot | None:
        """What was kept of the parent's curvature, if it is of these very weights."""
        found = load_snapshot(self.parent, weights_digest(self.module.state_dict()))
        return None if found is None else found.to(self.objective)

    @cached_property
    def data(self) -> TrainingData:
        return TrainingData.of(self.recipe.record)

    @cached_property
    def new_ids(self) -> frozenset[str]:
        """The samples that this job removes."""
        with self.job.area.require("fetch").open("removed.parquet") as path:
            return frozenset(pq.read_table(path).column("sample_id").to_pylist())

    @cached_property
    def earlier(self) -> dict[str, str]:
        """The samples that earlier versions removed, each with its outcome."""
        return removed_before(self.parent)

    @cached_property
    def removed_inputs(self) -> Samples:
        """The removed samples as the model takes them."""
        return self.data.samples(Split.TRAIN, only=self.new_ids).load()

    @cached_property
    def removed(self) -> Samples:
        """The removed samples as `objective` takes them."""
        if self.head is None:
            return self.removed_inputs
        # In one batch: there are few of them.
        return next(iter(self.head.features(self.removed_inputs).batches(len(self.removed_inputs))))

    @cached_property
    def retained(self) -> SampleSource:
        """The retained samples as `objective` takes them."""
        return self._taken(self._retained_rows)

    def some_retained(self, count: int) -> SampleSource:
        """`count` random retained samples, drawn by the job's seed, or all where there are no more."""
        rows = self._retained_rows
        if count >= len(rows):
            return self.retained
        ids = rows.ids()
        chosen = np.random.default_rng((self.job.config.seed, _SUBSET)).choice(len(ids), count, replace=False)
        only = frozenset(ids[place] for place in chosen)
        return self._taken(self.data.samples(Split.TRAIN, only=only))

    def retained_in_memory(self) -> Samples:
        """All retained samples as tensors, as the model takes them: what a trainer needs."""
        return self._retained_rows.load()

    @cached_property
    def test(self) -> SampleSource:
        """The held-out samples as `objective` takes them."""
        return self._taken(self.data.samples(Split.TEST))

    @cached_property
    def _retained_rows(self) -> ParquetSamples:
        return self.data.samples(Split.TRAIN, without=self.new_ids | frozenset(self.earlier))

    @cached_property
    def module(self) -> nn.Module:
        """The parent's module, on the CPU, in the record's dtype."""
        with self.job.area.require("fetch").open("weights.safetensors") as path:
            return self.recipe.module(load_weights(path))

    @cached_property
    def whole(self) -> Objective:
        """F of the parent's module, with its buffers, in the parameters that were trained."""
        return self.recipe.objective(self.module)

    @cached_property
    def head(self) -> FrozenHead | None:
        """The trained head of a frozen backbone, where the parent has one."""
        return frozen_head(self.whole, self.removed_inputs)

    @property
    def objective(self) -> Objective:
        """F as the stages compute it: of the head on features where there is one, else of the whole module."""
        return self.whole if self.head is None else self.head.objective

    def objective_of(self, module: nn.Module) -> Objective:
        """F of another module of the same recipe, with buffers of its own, for the samples that `objective` takes."""
        # Of a frozen backbone nothing differs but theta, which is given to an objective at each call.
        return self.recipe.objective(module) if self.head is None else self.objective

    @cached_property
    def theta(self) -> Tensor:
        """The parent's flat weights, (d,)."""
        return self.objective.theta()

    def with_theta(self, theta: Tensor) -> nn.Module:
        """The parent's module with other parameters, and its own buffers."""
        module = self.recipe.module(self.module.state_dict())
        self.whole.space.write(theta.to("cpu"), module)
        return module

    def theta_of(self, module: nn.Module) -> Tensor:
        """A module's parameters as one flat vector where the objective computes."""
        return self.whole.space.theta_of(module).to(self.theta)

    def block(self) -> Tensor | None:
        """Flat indices that the update may change; None for all."""
        stage = self.job.area.require("blanket")
        if "block.safetensors" not in stage.files:
            return None
        with stage.open("block.safetensors") as path:
            return load_weights(path)["indices"]

    def _taken(self, samples: ParquetSamples) -> SampleSource:
        """In memory where that fits, else streamed: curvature passes over the retained set many times."""
        if self.head is not None:
            return self.head.features(samples, budget_bytes=self.settings.memory_bytes)
        probe = next(iter(samples.batches(1)), None)
        if probe is None:
            return samples.load()
        row = probe.inputs.nbytes + probe.labels.nbytes
        return samples.load() if row * len(samples) <= self.settings.memory_bytes else samples
