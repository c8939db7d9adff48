"""Removals from convex models go to the minimiser by a factor that is kept, however training ended."""

from __future__ import annotations

import json
from typing import Any

import blobs
import mlflow
import pytest
import torch

from oubli.flows.training.retrain import retrain
from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for
from oubli.registry.training.training_record import FactoryReference

# What a store does with factors is tested in tests/registry/models; here the local one is enough.
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("settings", ["local"], indirect=True, scope="module")]


@pytest.fixture(scope="module")
def registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings)


def _removed(
    settings: Settings, registry: ModelRegistry, parent: str, removals: str, **config: Any
) -> tuple[RegisteredVersion, dict[str, Any]]:
    """The version that a removal made, and the facts of its update."""
    outcome = blobs.remove(settings, parent, [removals], UnlearnConfig.model_validate(config))
    assert outcome.status is Status.REGISTERED, outcome.reasons
    assert outcome.version is not None
    text = mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/oubli/evidence.json")
    return registry.version(outcome.model, outcome.version), json.loads(text)["stages"]["update"]


def _distance(registry: ModelRegistry, first: RegisteredVersion, second: RegisteredVersion) -> float:
    weights = [torch.cat([part.flatten() for part in registry.weights(each).values()]) for each in (first, second)]
    return float((weights[0] - weights[1]).double().norm())


def test_a_chain_goes_by_the_factor_of_training(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    trained = train(settings, blobs.spec("chained", data_uri))
    version, costs = trained, []
    # One sample, a person's, and more than a few.
    for name, numbers in (("a.csv", range(1, 2)), ("b.csv", range(8, 12)), ("c.csv", range(13, 40))):
        removals = blobs.sample_removals(settings, name, numbers)
        version, update = _removed(settings, registry, f"chained/{version.version}", removals)
        assert update["curvature"] == "dense_factor"
        assert update["snapshot_unused"] == ""
        assert all(version.tags[tag] == trained.tags[tag] for tag in ("oubli.factor", "oubli.factor_sha256"))
        last = update["steps"][-1]
        assert last["bound"] == pytest.approx(last["gradient_after"] / 1e-2)
        costs.append(sum(step["passes"] for step in update["steps"]))
        assert registry.client.get_run(version.run_id).data.metrics["update_passes"] == costs[-1]
    assert max(costs) <= 20
    again = retrain(settings, f"chained/{version.version}", []).version
    moved = _distance(registry, trained, version)
    # The registered weights are in float32.
    assert _distance(registry, version, again) <= 1e-5 * moved


def test_where_none_is_kept_the_first_removal_keeps_one(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    trained = train(settings, blobs.spec("bare", data_uri))
    store_for(settings.store_root).delete(trained.tags["oubli.factor"])
    first, update = _removed(settings, registry, "bare/1", blobs.sample_removals(settings, "a.csv", range(1, 2)))
    assert "No factor was kept" in update["snapshot_unused"]
    assert first.tags["oubli.factor"] != trained.tags["oubli.factor"]
    second, update = _removed(settings, registry, "bare/2", blobs.sample_removals(settings, "b.csv", range(2, 4)))
    assert update["snapshot_unused"] == ""
    assert second.tags["oubli.factor"] == first.tags["oubli.factor"]
    # Who wants none of it takes a new one.
    third, _ = _removed(
        settings, registry, "bare/3", blobs.sample_removals(settings, "c.csv", range(4, 6)), use_snapshot="never"
    )
    assert third.tags["oubli.factor"] != second.tags["oubli.factor"]


def test_a_model_that_training_left_short_of_its_minimum_is_served(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    """The distance after the update is judged, not where training ended."""
    adam = FactoryReference(target=f"{blobs.REFERENCE}.training:fit_minibatch", kwargs={"epochs": 3})
    train(settings, blobs.spec("adam", data_uri, retrain=adam))
    removals = blobs.sample_removals(settings, "a.csv", range(1, 12))
    version, update = _removed(settings, registry, "adam/1", removals)
    assert update["model_gradient"] > 10 * update["steps"][-1]["gradient_after"]
    assert update["model_gradient"] > 1e-3
    assert registry.client.get_run(version.run_id).data.params["verdict"] == "accepted"


def test_settings_of_single_steps_are_kept_to(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    train(settings, blobs.spec("asked", data_uri))
    removals = blobs.sample_removals(settings, "a.csv", range(1, 4))
    _, update = _removed(settings, registry, "asked/1", removals, steps=3)
    assert update["curvature"] == "ggn"
    assert len(update["steps"]) == 3
