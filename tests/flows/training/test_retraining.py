"""Training and retraining: what was removed stays out, and an alias never brings it back."""

from __future__ import annotations

from dataclasses import replace

import blobs
import pytest

from oubli.flows.training.retrain import retrain
from oubli.flows.training.train import train
from oubli.registry.errors import RemovalSetError, TrainingRecordError
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.settings import Settings

# Whole removals, seconds each.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings)


@pytest.fixture
def unlearned(settings: Settings, data_uri: str, request: pytest.FixtureRequest) -> str:
    """Name of a model of the test's own, with a version 2 that lacks ten samples."""
    name = request.function.__name__
    train(settings, blobs.spec(name, data_uri))
    outcome = blobs.remove(settings, name, [blobs.sample_removals(settings, "ten.csv", range(1, 13))])
    assert (outcome.version, outcome.removed) == ("2", 10)
    return name


def test_retraining_leaves_out_what_was_removed(settings: Settings, registry: ModelRegistry, unlearned: str) -> None:
    two = blobs.sample_removals(settings, "two.csv", range(13, 15))
    retrained = retrain(settings, unlearned, [two])
    assert retrained.advice == ""
    assert len(removed_before(retrained.version)) == 12
    run = registry.client.get_run(retrained.version.run_id).data
    assert run.metrics["retained_samples"] == 200 - 12
    assert run.params["method"] == "retrained"
    assert registry.aliases(retrained.version) == ["challenger"]


def test_the_same_retraining_again_finds_its_version(settings: Settings, unlearned: str) -> None:
    two = blobs.sample_removals(settings, "two.csv", range(13, 15))
    first = retrain(settings, unlearned, [two])
    assert first.version.version == "3"
    assert retrain(settings, f"{unlearned}/2", [two]).version == first.version


def test_retraining_an_older_version_does_not_take_the_alias(
    settings: Settings, registry: ModelRegistry, unlearned: str
) -> None:
    two = blobs.sample_removals(settings, "two.csv", range(13, 15))
    # Version 1 still has what version 2 removed.
    older = retrain(settings, f"{unlearned}/1", [two])
    assert len(removed_before(older.version)) == 2
    assert "'challenger' stays at version 2, which also removed 10 samples" in older.advice
    assert registry.aliases(older.version) == []
    assert registry.by_alias(unlearned, "challenger").version == "2"
    # It is said again to whoever asks again.
    assert retrain(settings, f"{unlearned}/1", [two]) == replace(older, found=True)


def test_retraining_without_anything_left_is_refused(settings: Settings, unlearned: str) -> None:
    everything = blobs.sample_removals(settings, "all.csv", range(blobs.ROWS))
    with pytest.raises(RemovalSetError, match="takes all 190 samples"):
        retrain(settings, unlearned, [everything])


def test_a_new_training_leaves_out_what_was_removed(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    train(settings, blobs.spec("again", data_uri))
    blobs.remove(settings, "again", [blobs.sample_removals(settings, "three.csv", range(1, 4))])
    trained = train(settings, blobs.spec("again", data_uri, seed=1))
    assert set(removed_before(trained)) == {f"sample-{number:04d}" for number in range(1, 4)}
    assert registry.client.get_run(trained.run_id).data.metrics["retained_samples"] == 197
    assert registry.head("again") == trained


def test_a_trainer_without_epochs_keeps_no_secant(settings: Settings, data_uri: str) -> None:
    with pytest.raises(TrainingRecordError, match="fit_convex takes no `on_epoch`"):
        train(settings, blobs.spec("no-epochs", data_uri, secant=True))
