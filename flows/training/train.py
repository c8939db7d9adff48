"""Train: a model from its specification, registered as a version."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import nn

from oubli.components.model.per_sample import require_per_sample
from oubli.components.progress import Progress
from oubli.components.reference.secant import LastEpochs
from oubli.registry.models.lineage import Lineage, Method
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.trained_models import Provenance, register_trained
from oubli.registry.removals.removed_ids import removed_from_any, store_removed
from oubli.registry.settings import Settings
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.train_spec import TrainSpec
from oubli.registry.training.training_data import TrainingData
from oubli.registry.training.training_record import Split
from oubli.registry.training.writing import dataset_sha256


def train(settings: Settings, spec: TrainSpec, on_progress: Progress | None = None) -> RegisteredVersion:
    """Train a recipe on its train split, register the model with its training record, and set its alias.

    What any version of the same model has removed is left out: it must not come back with a new training.

    Args:
        settings: Of this process.
        spec: The model's name, data, recipe and alias.
        on_progress: Takes the fraction done.

    Raises:
        ConfigurationError: The model or its loss has no per-sample form.
        DataError: The training data is not what the specification says.
        RegistryError: A factory is not allowed, or MLflow could not log the model.
    """
    record = spec.record(dataset_sha256(spec.dataset_uri), n=1)
    data = TrainingData.of(record, verify=False)
    ids = data.ids().known
    removed = removed_from_any(ModelRegistry(settings), spec.model)
    left_out = {sample: key for sample, key in removed.items() if sample in ids}
    record = record.model_copy(update={"n": len(ids)})
    recipe = Recipe.of(record, settings)
    samples = data.samples(Split.TRAIN, without=frozenset(left_out)).load()
    # Before an hour of training, rather than at its registration.
    objective = recipe.objective(recipe.untrained())
    require_per_sample(objective, objective.theta(), samples)
    watched: list[LastEpochs] = []

    def watch(module: nn.Module) -> Callable[[int], None]:
        watched.append(LastEpochs(module, record.trained))
        return watched[0].record

    started = time.perf_counter()
    module = recipe.train(samples, on_progress, watch=watch if spec.secant else None)
    seconds = time.perf_counter() - started
    return register_trained(
        spec.model,
        module,
        record,
        settings=settings,
        alias=spec.alias,
        provenance=Provenance(
            lineage=Lineage(method=Method.TRAINED, verdict="trained", removed_in_all=len(left_out)),
            without=frozenset(left_out),
            version_tags=store_removed(settings.store_root, "", (), left_out) if left_out else {},
            seconds=seconds,
            secant=watched[0].secant(samples, recipe.loss) if watched else None,
        ),
        snapshot=spec.snapshot,
    )
