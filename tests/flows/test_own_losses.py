"""Losses of a user's own, from training to removal: what has no per-sample form is refused, what vmap cannot run goes
one sample at a time, and embeddings are told by the means of their classes."""

from __future__ import annotations

import blobs
import pytest
import torch

from oubli.components.errors import ConfigurationError
from oubli.flows.stages.fetch import fetch
from oubli.flows.training.train import train
from oubli.registry.models import tags
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.models.registration import attach_record
from oubli.registry.models.trained_models import register_trained
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_record import FactoryReference

NETWORK = {
    "factory": FactoryReference(target="blob_network:build", kwargs={"width": 8}),
    "retrain": FactoryReference(target=f"{blobs.REFERENCE}.training:fit_minibatch", kwargs={"epochs": 5}),
    "convex": False,
}


@pytest.fixture
def registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings)


@pytest.fixture(autouse=True)
def prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUBLI_FACTORY_PREFIXES", "oubli.components.reference,blob_network,odd_losses")


@pytest.mark.slow
def test_a_loss_that_vmap_cannot_run_removes_as_one_that_it_can(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    removals = blobs.sample_removals(settings, "five.csv", range(1, 6))
    weights = []
    for name in ("margin", "margin_by_index"):
        version = train(Settings(), blobs.spec(name, data_uri, loss=f"odd_losses:{name}"))
        assert ("vmap cannot run" in version.tags[tags.ADVICE]) == (name == "margin")
        outcome = blobs.remove(Settings(), name, [removals], UnlearnConfig())
        assert outcome.status is Status.REGISTERED
        weights.append(registry.weights(registry.version(name, str(outcome.version))))
    for slow, quick in zip(*(each.values() for each in weights), strict=True):
        torch.testing.assert_close(slow, quick)


@pytest.mark.slow
def test_embeddings_are_told_by_the_means_of_their_classes(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    train(Settings(), blobs.spec("embedding", data_uri, loss="odd_losses:margin", **NETWORK))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    config = UnlearnConfig(compare_with_retraining=True, damping=0.1)
    outcome = blobs.remove(Settings(), "embedding", [removals], config)
    metrics = registry.client.get_run(outcome.run_id).data.metrics
    for suffix in ("_parent", "_retrained"):
        for each in ("forget", "retained", "test"):
            assert 0 <= metrics[f"{each}_class_mean_accuracy{suffix}"] <= 1
            assert f"{each}_accuracy{suffix}" not in metrics
    assert metrics["retained_class_mean_accuracy_parent"] > 0.5


def test_a_loss_of_the_batch_is_refused_before_it_is_trained(registry: ModelRegistry, data_uri: str) -> None:
    with pytest.raises(ConfigurationError, match="The loss 'contrastive' gives a sample another value in a batch"):
        train(Settings(), blobs.spec("pairs", data_uri, loss="odd_losses:contrastive", **NETWORK))
    assert registry.versions("pairs") == []


def test_a_model_trained_elsewhere_by_a_loss_of_the_batch_is_refused(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    version = train(Settings(), blobs.spec("elsewhere", data_uri, **NETWORK))
    record = registry.training_record(version).model_copy(update={"loss": "odd_losses:contrastive"})
    module = Recipe.of(record, Settings()).module(registry.weights(version))
    with pytest.raises(ConfigurationError, match="no per-sample form"):
        register_trained("pairs", module, record, settings=Settings())
    assert registry.versions("pairs") == []
    # A record attached to a version that is there already is read when a removal is asked for.
    attach_record(registry, version, record)
    removals = blobs.sample_removals(settings, "one.csv", range(1, 2))
    with pytest.raises(ConfigurationError, match="no per-sample form"):
        fetch(Settings(), "elsewhere/1", [removals], UnlearnConfig())
