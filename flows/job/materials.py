"""What the numeric stages of one job work on: its model side and its data side, joined.

Axes: d trained parameters.

Where the parent is a trained head on a frozen backbone, the two sides meet at the backbone's features: the objective is
the head's, and samples are features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot
from oubli.components.model.frozen_head import FrozenHead, frozen_head
from oubli.components.model.gradients import RemovedGradient
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples, SampleSource
from oubli.components.model.state import ModelState, moving_buffers
from oubli.flows.job.account import Account
from oubli.flows.job.choices import Choices
from oubli.flows.job.data_side import DataSide
from oubli.flows.job.facts import BLOCK, GRADIENTS, BlockFacts, Stage
from oubli.flows.job.model_side import ModelSide
from oubli.registry.models.snapshots import load_snapshot
from oubli.registry.models.weights import load_weights, weights_digest
from oubli.registry.removals.job import RemovalJob
from oubli.registry.settings import Settings
from oubli.registry.training.training_data import ParquetSamples

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Materials:
    """Model, data and removal set of one job. Each part is read when it is first asked for."""

    settings: Settings
    job: RemovalJob

    @cached_property
    def model(self) -> ModelSide:
        return ModelSide(self.settings, self.job)

    @cached_property
    def data(self) -> DataSide:
        return DataSide(self.job, self.model.parent, self.model.record)

    @cached_property
    def choices(self) -> Choices:
        """The job's settings with nothing left open."""
        return Choices(self.job.config, self.model.record)

    @cached_property
    def account(self) -> Account:
        """What was removed since the parent's lineage was trained, this removal included."""
        return Account(self.job, self.model, self.data)

    @cached_property
    def head(self) -> FrozenHead | None:
        """The trained head of a frozen backbone, where the parent has one."""
        return frozen_head(self.model.whole, self.data.removed)

    @property
    def objective(self) -> Objective:
        """F as the stages compute it: of the head on features where there is one, else of the whole module."""
        return self.model.whole if self.head is None else self.head.objective

    def objective_of(self, module: nn.Module) -> Objective:
        """F of another module of the same recipe, with its own buffers, for the samples that `objective` takes."""
        if self.head is None:
            return self.model.recipe.objective(module)
        # Of a frozen backbone nothing differs.
        own = self.part_of(module).state_dict()
        buffers = {name: own[name] for name in moving_buffers(self.objective)}
        return ModelState(self.theta_of(module), buffers).within(self.objective)

    def part_of(self, module: nn.Module) -> nn.Module:
        """What `objective` computes of a module of the same recipe: its head where there is one, else all of it."""
        return module if self.head is None else module.get_submodule(self.head.name)

    def with_state(self, state: ModelState) -> nn.Module:
        """The parent's module with the weights and buffers of a state of `objective`."""
        prefix = "" if self.head is None else f"{self.head.name}."
        return self.model.with_theta(
            state.theta, {f"{prefix}{name}": value.cpu() for name, value in state.buffers.items()}
        )

    @cached_property
    def theta(self) -> Tensor:
        """The parent's flat weights, (d,), where the objective computes."""
        return self.objective.theta()

    def theta_of(self, module: nn.Module) -> Tensor:
        """Another module's flat weights, (d,), where the objective computes."""
        return self.model.whole.space.theta_of(module).to(self.theta)

    @cached_property
    def as_trained(self) -> tuple[Objective, Tensor] | None:
        """The model that the parent came from by removals, with its buffers and its weights; None where it is gone."""
        if self.account.parent_is_origin:
            return self.objective, self.theta
        origin = self.account.origin
        weights = None if origin is None else self.model.registry.weights_if_there(origin)
        if weights is None:
            return None
        module = self.model.recipe.module(weights)
        return self.objective_of(module), self.theta_of(module)

    @cached_property
    def snapshot(self) -> CurvatureSnapshot | None:
        """What was kept of the parent's curvature, if it is of these very weights."""
        stored = load_snapshot(self.model.parent, weights_digest(self.model.module.state_dict()))
        return None if stored is None else stored.to(self.objective)

    @cached_property
    def removed(self) -> Samples:
        """The removed samples as `objective` takes them."""
        if self.head is None:
            return self.data.removed
        # In one batch: there are few of them.
        return next(iter(self.head.features(self.data.removed).batches(len(self.data.removed))))

    @cached_property
    def removed_gradient(self) -> RemovedGradient:
        """The removed samples' gradient, as its own stage left it."""
        with self.job.area.open(Stage.GRADIENTS, GRADIENTS) as path:
            total = load_weights(path)["sum"].to(self.theta)
        return RemovedGradient(total, len(self.data.new_ids))

    @cached_property
    def retained(self) -> SampleSource:
        """The retained samples as `objective` takes them."""
        return self.taken(self.data.retained)

    def some_retained(self, count: int) -> SampleSource:
        """`count` random retained samples as `objective` takes them, or all where there are no more."""
        rows = self.data.some_retained(count)
        return self.retained if rows is self.data.retained else self.taken(rows)

    @cached_property
    def removed_in_all(self) -> Samples:
        """All samples removed since the original was trained whose rows are still in the data, as `objective` takes
        them."""
        present = self.account.removed_ids & self.data.table.ids().known
        return in_memory(self.taken(self.data.those(present)))

    @cached_property
    def held_out(self) -> SampleSource:
        """V, the samples that decide and were never trained on, as `objective` takes them."""
        return self.taken(self.data.held_out)

    @cached_property
    def test(self) -> SampleSource:
        """The samples that figures are reported on, as `objective` takes them."""
        return self.taken(self.data.test)

    def block(self) -> Tensor | None:
        """Sorted flat indices of the parameters that the update may change, int64; None for all."""
        stage = self.job.area.require(Stage.BLANKET, BlockFacts)
        if BLOCK not in stage.files:
            return None
        with self.job.area.open(Stage.BLANKET, BLOCK) as path:
            return load_weights(path)["indices"]

    def taken(self, samples: ParquetSamples) -> SampleSource:
        """Samples as `objective` takes them: in memory where that fits, else streamed.

        Curvature passes over the retained set many times.
        """
        if self.head is not None:
            return self.head.features(samples, budget_bytes=self.settings.memory_bytes)
        probe = next(iter(samples.batches(1)), None)
        if probe is None:
            return samples.load()
        row = probe.inputs.nbytes + probe.labels.nbytes
        return samples.load() if row * len(samples) <= self.settings.memory_bytes else samples


def in_memory(source: SampleSource) -> Samples:
    """All samples of a source, as training holds them."""
    if isinstance(source, Samples):
        return source
    if isinstance(source, ParquetSamples):
        return source.load()
    parts = list(source.batches(_ROWS_AT_ONCE))
    return Samples(torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts]))
