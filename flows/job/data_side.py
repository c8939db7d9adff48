"""The data side of a job: which rows it removes, which stay, and which were never trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.parquet as pq

from oubli.components.errors import ConfigurationError
from oubli.components.model.samples import Samples
from oubli.flows.job.facts import REMOVED_IDS, Stage
from oubli.registry.models.model_registry import RegisteredVersion
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.training.held_out import HeldOut, held_out_rows
from oubli.registry.training.training_data import ParquetSamples, TrainingData
from oubli.registry.training.training_record import Split, TrainingRecord

# Keeps the draw of a subset apart from what else the job's seed is used for.
_SUBSET = 1


@dataclass(frozen=True)
class DataSide:
    """The rows of one job, as the model takes them. Each part is read when it is first asked for.

    Attributes:
        parent: The version that samples are removed from.
        record: Its training record.
    """

    job: RemovalJob
    parent: RegisteredVersion
    record: TrainingRecord

    @cached_property
    def table(self) -> TrainingData:
        """What the parent was trained on; its digest is checked."""
        return TrainingData.of(self.record)

    @cached_property
    def new_ids(self) -> frozenset[str]:
        """The samples that this job removes."""
        with self.job.area.open(Stage.FETCH, REMOVED_IDS) as path:
            return frozenset(pq.read_table(path).column("sample_id").to_pylist())

    @cached_property
    def earlier(self) -> dict[str, str]:
        """The samples that earlier versions removed, each with the key of the removal that took it."""
        return removed_before(self.parent)

    @cached_property
    def removed(self) -> Samples:
        """The removed samples, in memory: there are few of them."""
        return self.those(self.new_ids).load()

    @cached_property
    def retained(self) -> ParquetSamples:
        """The training samples that stay."""
        return self.table.samples(Split.TRAIN, without=self.new_ids | frozenset(self.earlier))

    @cached_property
    def held_out_rows(self) -> HeldOut:
        """The rows that decide, and those that are reported on."""
        return held_out_rows(self.table, self.record, self.job.store_root)

    @property
    def held_out(self) -> ParquetSamples:
        """V, the samples that decide. ConfigurationError for a convex model, which has none."""
        rows = self.held_out_rows.held_out
        if rows is None:
            raise ConfigurationError("A convex model is judged by its gradient, and holds no samples out for that.")
        return rows

    @property
    def test(self) -> ParquetSamples:
        """The samples that figures are reported on."""
        return self.held_out_rows.test

    def those(self, ids: frozenset[str]) -> ParquetSamples:
        """Training samples by id."""
        return self.table.samples(Split.TRAIN, only=ids)

    def some_retained(self, count: int) -> ParquetSamples:
        """`count` random retained samples, drawn by the job's seed; `retained` itself where there are no more."""
        if count >= len(self.retained):
            return self.retained
        ids = self.retained.ids()
        chosen = np.random.default_rng((self.job.config.seed, _SUBSET)).choice(len(ids), count, replace=False)
        return self.those(frozenset(ids[position] for position in chosen))
