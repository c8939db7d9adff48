"""Where training's settings are found."""

from __future__ import annotations

from records import training_record

from oubli.components.removal.descent import Optimiser
from oubli.components.removal.surrogate import TrainingSettings
from oubli.registry.training.how_trained import ASSUMED, OWN_TRAINER, HowTrained, SettingsSource, how_trained
from oubli.registry.training.training_record import FactoryReference, TrainingOptions


def test_the_record_says() -> None:
    options = TrainingOptions(optimiser=Optimiser.SGD, peak_rate=0.1, batch_size=128, epochs=16, momentum=0.8)
    # The record wins over what its recipe would say.
    found = how_trained(training_record(training=options, retrain=FactoryReference(target=OWN_TRAINER)))
    settings = TrainingSettings(Optimiser.SGD, peak_rate=0.1, batch_size=128, epochs=16, momentum=0.8)
    assert found == HowTrained(settings, SettingsSource.RECORD)


def test_the_recipe_says_where_it_is_our_own() -> None:
    recipe = FactoryReference(target=OWN_TRAINER, kwargs={"epochs": 7, "learning_rate": 0.02, "settling": 1})
    found = how_trained(training_record(retrain=recipe))
    # The trainer's default batch.
    assert found == HowTrained(TrainingSettings(Optimiser.ADAM, 0.02, 64, 7), SettingsSource.RECIPE)


def test_else_it_is_assumed() -> None:
    recipe = FactoryReference(target="my.training:fit", kwargs={"epochs": 7})
    assert how_trained(training_record(retrain=recipe)) == HowTrained(ASSUMED, SettingsSource.ASSUMED)
