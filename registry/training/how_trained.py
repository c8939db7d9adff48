"""How an optimiser trained a model: from its record, from the arguments of Oubli's own trainer, or assumed."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import StrEnum

from oubli.components.reference.training import fit_minibatch
from oubli.components.removal.optimisers import Optimiser
from oubli.components.removal.surrogate import TrainingSettings
from oubli.registry.training.training_record import TrainingRecord

OWN_TRAINER = f"{fit_minibatch.__module__}:{fit_minibatch.__name__}"
"""The import string of the trainer whose arguments are known: Adam, its rate falling to 0."""

ASSUMED = TrainingSettings(Optimiser.ADAM, peak_rate=1e-3, batch_size=64, epochs=30)
"""Where nothing is known: common settings for a network of some size. A record with `training` says better."""


class SettingsSource(StrEnum):
    """Where training's settings were found."""

    RECORD = "from the record"
    RECIPE = "from the recipe"
    ASSUMED = "assumed"


@dataclass(frozen=True)
class HowTrained:
    """The settings that a brief training beside the model follows, and where they were found."""

    settings: TrainingSettings
    source: SettingsSource


def how_trained(record: TrainingRecord) -> HowTrained:
    """The settings of a record's training."""
    if record.training is not None:
        return HowTrained(TrainingSettings(**dict(record.training)), SettingsSource.RECORD)
    if record.retrain.target == OWN_TRAINER:
        return HowTrained(_of_own_trainer(record), SettingsSource.RECIPE)
    return HowTrained(ASSUMED, SettingsSource.ASSUMED)


def _of_own_trainer(record: TrainingRecord) -> TrainingSettings:
    """Its arguments as the record gives them, and its defaults for the others."""
    defaults = {name: one.default for name, one in inspect.signature(fit_minibatch).parameters.items()}
    given = defaults | record.retrain.kwargs
    return TrainingSettings(
        Optimiser.ADAM,
        peak_rate=float(given["learning_rate"]),
        batch_size=int(given["batch_size"]),
        epochs=int(given["epochs"]),
    )
