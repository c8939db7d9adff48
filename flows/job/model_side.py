"""The model side of a job: the parent version, its record, and the modules that its stages wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from oubli.components.model.objective import Objective
from oubli.components.model.state import write_buffers
from oubli.flows.job.facts import WEIGHTS, Stage
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import experiment_for
from oubli.registry.models.weights import load_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.settings import Settings
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_record import TrainingRecord


@dataclass(frozen=True)
class ModelSide:
    """The parent of one job as the registry knows it, and as a module. Each part is read when it is first asked for."""

    settings: Settings
    job: RemovalJob

    @cached_property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(self.settings)

    @cached_property
    def parent(self) -> RegisteredVersion:
        """The version that samples are removed from."""
        return self.registry.version(self.job.model, self.job.parent_version)

    @cached_property
    def experiment_id(self) -> str:
        """The parent's MLflow experiment."""
        return experiment_for(self.registry, self.job.model, self.parent)

    @cached_property
    def recipe(self) -> Recipe:
        """How the parent was trained, made to run."""
        return Recipe.of(self.registry.training_record(self.parent), self.settings)

    @property
    def record(self) -> TrainingRecord:
        return self.recipe.record

    @cached_property
    def module(self) -> nn.Module:
        """The parent's module, on the CPU, in the record's dtype."""
        return self.module_of(Stage.FETCH)

    @cached_property
    def whole(self) -> Objective:
        """F of the parent's module, with its buffers, in the parameters that were trained."""
        return self.recipe.objective(self.module)

    def weights_of(self, stage: Stage) -> dict[str, Tensor]:
        """The state dict that a stage wrote."""
        with self.job.area.open(stage, WEIGHTS) as path:
            return load_weights(path)

    def module_of(self, stage: Stage) -> nn.Module:
        """A module with the weights and buffers that a stage wrote."""
        return self.recipe.module(self.weights_of(stage))

    def with_theta(self, theta: Tensor, buffers: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The parent's module with other parameters.

        Args:
            theta: (d,), on any device.
            buffers: By name, on any device, those that are not the parent's.
        """
        module = self.recipe.module(self.module.state_dict())
        self.whole.space.write(theta.to("cpu"), module)
        write_buffers(module, buffers or {})
        return module
