"""What the numeric stages of one job work on, loaded from the registry, the object store and the work area."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow.parquet as pq
from torch import Tensor, nn

from oubli.components.objective import Objective
from oubli.components.samples import Samples
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import experiment_for
from oubli.registry.models.weights import load_weights
from oubli.registry.removals.removal_job import RemovalJob
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.settings import Settings
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_data import ParquetSamples, TrainingData
from oubli.registry.training.training_record import Split


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
    def removed(self) -> Samples:
        return self.data.samples(Split.TRAIN, only=self.new_ids).load()

    @cached_property
    def retained(self) -> Samples | ParquetSamples:
        return self._source(self.data.samples(Split.TRAIN, without=self.new_ids | frozenset(self.earlier)))

    @property
    def retained_in_memory(self) -> Samples:
        """All retained samples as tensors, which is what a trainer takes."""
        retained = self.retained
        return retained.load() if isinstance(retained, ParquetSamples) else retained

    @cached_property
    def test(self) -> Samples | ParquetSamples:
        return self._source(self.data.samples(Split.TEST))

    @cached_property
    def module(self) -> nn.Module:
        """The parent's module, on the CPU, in the record's dtype."""
        with self.job.area.require("fetch").open("weights.safetensors") as path:
            return self.recipe.module(load_weights(path))

    @cached_property
    def objective(self) -> Objective:
        """The parent's, with its buffers."""
        return self.objective_of(self.module)

    def objective_of(self, module: nn.Module) -> Objective:
        return Objective(
            module,
            self.recipe.loss,
            self.recipe.record.l2,
            device=self.settings.torch_device(),
            dtype=self.recipe.compute_dtype,
        )

    @cached_property
    def theta(self) -> Tensor:
        """The parent's flat weights, (d,)."""
        return self.objective.theta()

    def with_theta(self, theta: Tensor) -> nn.Module:
        """The parent's module with other parameters, and its own buffers."""
        module = self.recipe.module(self.module.state_dict())
        self.objective.space.write(theta.to("cpu"), module)
        return module

    def theta_of(self, module: nn.Module) -> Tensor:
        """A module's parameters as one flat vector where the objective computes."""
        return self.objective.space.theta_of(module).to(self.theta)

    def block(self) -> Tensor | None:
        """Flat indices that the update may change; None for all."""
        stage = self.job.area.require("blanket")
        if "block.safetensors" not in stage.files:
            return None
        with stage.open("block.safetensors") as path:
            return load_weights(path)["indices"]

    def _source(self, samples: ParquetSamples) -> Samples | ParquetSamples:
        """In memory where that fits, else streamed: curvature passes over the retained set many times."""
        probe = next(iter(samples.batches(1)), None)
        if probe is None:
            return samples.load()
        row = probe.inputs.nbytes + probe.labels.nbytes
        return samples.load() if row * len(samples) <= self.settings.memory_bytes else samples
