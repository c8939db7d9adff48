"""A small problem that flows are tested on: three overlapping Gaussian classes, four rows a person."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from oubli.components.model.losses import Loss
from oubli.flows.job.facts import Stage
from oubli.flows.job.ladder import descend
from oubli.flows.stages.audit import audit
from oubli.flows.stages.block import blanket
from oubli.flows.stages.fetch import fetch
from oubli.flows.stages.gradients import gradients
from oubli.flows.stages.planning import plan_removal
from oubli.flows.stages.register import register
from oubli.flows.stages.retrain import retrain_reference
from oubli.flows.stages.sequence import computing_stages
from oubli.flows.stages.surrogate import surrogate
from oubli.flows.stages.update import update
from oubli.flows.stages.validate import validate
from oubli.flows.training.retrain import Retraining, Start, as_outcome, retrain
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import RemovalOutcome
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for
from oubli.registry.storage.uris import join
from oubli.registry.training.train_spec import TrainSpec
from oubli.registry.training.training_record import FactoryReference, VectorDecoder

FEATURES, CLASSES = 6, 3
ROWS, TEST_EVERY, ROWS_A_PERSON = 240, 6, 4
REFERENCE = "oubli.components.reference"
COMPUTING: dict[Stage, Callable[[Settings, RemovalJob], object]] = {
    Stage.GRADIENTS: gradients,
    Stage.BLANKET: blanket,
    Stage.SURROGATE: surrogate,
    Stage.UPDATE: update,
    Stage.RETRAIN: retrain_reference,
    Stage.AUDIT: audit,
    Stage.VALIDATE: validate,
}


def table() -> pa.Table:
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, ROWS)
    values = random.normal(size=(CLASSES, FEATURES))[labels] + 0.7 * random.normal(size=(ROWS, FEATURES))
    return pa.table(
        {
            "sample_id": [f"sample-{number:04d}" for number in range(ROWS)],
            "person": [f"person-{number // ROWS_A_PERSON:03d}" for number in range(ROWS)],
            "values": pa.array(list(values.astype(np.float32))),
            "label": pa.array(labels, pa.int32()),
            "split": np.where(np.arange(ROWS) % TEST_EVERY == 0, "test", "train"),
        }
    )


def spec(model: str, data_uri: str, **changes: object) -> TrainSpec:
    """A convex model on the blobs, which trains in a tenth of a second; `changes` replace fields."""
    return TrainSpec.model_validate(
        {
            "model": model,
            "dataset_uri": data_uri,
            "subject_column": "person",
            "decoder": VectorDecoder(columns=("values",)),
            "loss": Loss.CROSS_ENTROPY,
            "l2": 1e-2,
            "factory": FactoryReference(
                target=f"{REFERENCE}.models:logistic_regression", kwargs={"features": FEATURES, "classes": CLASSES}
            ),
            "retrain": FactoryReference(target=f"{REFERENCE}.training:fit_convex"),
            "convex": True,
            **changes,
        }
    )


def write_removals(settings: Settings, name: str, text: str, prefix: str = "removals") -> str:
    """Put a removal set on the store; its URI."""
    uri = join(settings.store_root, prefix, name)
    store_for(uri).write(uri, text.encode())
    return uri


def sample_removals(settings: Settings, name: str, numbers: range, prefix: str = "removals") -> str:
    """A removal set of those training samples, one request each."""
    rows = [f"sample-{number:04d},request-{number}" for number in numbers if number % TEST_EVERY]
    return write_removals(settings, name, "\n".join(["sample_id,request_id", *rows]), prefix)


def remove(settings: Settings, model: str, removals: list[str], config: UnlearnConfig | None = None) -> RemovalOutcome:
    """The stages of one removal, one after the other, by the first way that the configuration lists."""
    job = fetch(settings, model, removals, config or UnlearnConfig())
    if isinstance(job, RemovalOutcome):
        return job
    for stage in computing_stages(job):
        COMPUTING[stage](settings, job)
    return register(settings, job)


def unlearn(settings: Settings, model: str, removals: list[str], config: UnlearnConfig) -> RemovalOutcome:
    """The flow `unlearn`, without Prefect."""
    how = (Retraining(start, config.alias, config.unknown_ids) for start in (Start.COLD, Start.WARM))
    cold, warm = how
    return descend(
        plan_removal(settings, model, removals, config).tried,
        config,
        lambda one_way: remove(settings, model, removals, one_way),
        lambda from_weights: as_outcome(retrain(settings, model, removals, how=warm if from_weights else cold)),
    )
