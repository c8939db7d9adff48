"""The ways to remove: each is recorded as it was taken, and one that fails is refused."""

from __future__ import annotations

import json

import blobs
import mlflow
import pytest

from oubli.components.blocks.choosing import BlockChoice
from oubli.components.errors import ConfigurationError
from oubli.components.gate.limits import GateLimits
from oubli.components.removal.damping import GRADIENT_RISE
from oubli.flows.job.facts import UPDATE_FACTS, BlockFacts, Made, Stage
from oubli.flows.stages.fetch import fetch
from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.unlearn_config import NothingToForget, UnlearnConfig, Way
from oubli.registry.settings import Settings
from oubli.registry.training.training_record import FactoryReference

# Whole removals, seconds each.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings)


@pytest.mark.slow
def test_network_is_updated_on_its_blanket(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    factory = FactoryReference(target="blob_network:build", kwargs={"width": 12})
    # To a minimum, from where the step forgets.
    training = FactoryReference(
        target=f"{blobs.REFERENCE}.training:fit_minibatch",
        kwargs={"epochs": 1000, "batch_size": 200, "learning_rate": 0.03},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUBLI_FACTORY_PREFIXES", "oubli.components.reference,blob_network")
        allowing = Settings()
        trained = train(allowing, blobs.spec("network", data_uri, factory=factory, retrain=training, convex=False))
        removals = blobs.sample_removals(allowing, "ten.csv", range(11, 21))
        # Beside the retrained model it is found to have forgotten little; here it may.
        limits = GateLimits(excess_divergence=1e3, excess_as_labelled=0.2)
        config = UnlearnConfig(
            method=Way.NEWTON,
            perturbations=200,
            compare_with_retraining=True,
            limits=limits,
            nothing_to_forget=NothingToForget.UPDATE,
        )
        outcome = blobs.remove(allowing, "network", [removals], config)
    assert outcome.status is Status.REGISTERED, outcome.reasons
    parent, child = (registry.weights(registry.version("network", version)) for version in ("1", "2"))
    moved = sum(int((parent[name] != child[name]).sum()) for name in parent)
    run = registry.client.get_run(outcome.run_id).data
    stages = json.loads(mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/oubli/evidence.json"))["stages"]
    assert 0 < moved <= stages["blanket"]["block"] < stages["blanket"]["parameters"]
    # The parent was trained, and kept its curvature: no retained sample was read for the step.
    assert "oubli.snapshot" in trained.tags
    assert run.params["curvature"] == "snapshot (dense)"
    assert stages["update"]["steps"][0]["gradient_after"] is None
    # What it was measured to do, whatever it read.
    assert run.metrics["retained_gradient_norm"] <= (1 + GRADIENT_RISE) * run.metrics["retained_gradient_norm_parent"]


def test_refusal_promotes_nothing_and_says_why(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    train(settings, blobs.spec("refused", data_uri))
    removals = blobs.sample_removals(settings, "ten.csv", range(11, 21))
    # One step with a large damping does next to nothing.
    idle = UnlearnConfig(steps=1, damping=1e3)
    outcome = blobs.remove(settings, "refused", [removals], idle)
    assert outcome.status is Status.REFUSED
    assert outcome.version is None
    assert "The weights may be" in outcome.reasons[0]
    assert "Take more steps" in outcome.reasons[0]
    assert "oubli train --from refused --removals" in outcome.advice
    assert len(registry.client.search_model_versions("name = 'refused'")) == 1
    run = registry.client.get_run(outcome.run_id)
    assert run.data.params["verdict"] == "refused"
    assert run.info.status == "FINISHED"
    # The same request again is answered from the record, without another run.
    assert blobs.remove(settings, "refused", [removals], idle) == outcome


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("odd_losses:curves_down", "not positive definite"),
        ("odd_losses:bends_infinitely", "finite"),
        ("odd_losses:knows_nothing", "chose none of 27 slices"),
    ],
)
def test_update_that_cannot_be_made_is_refused(
    settings: Settings, registry: ModelRegistry, data_uri: str, monkeypatch: pytest.MonkeyPatch, loss: str, words: str
) -> None:
    monkeypatch.setenv("OUBLI_FACTORY_PREFIXES", "oubli.components.reference,blob_network,odd_losses")
    name = loss.partition(":")[2]
    training = {"target": f"{blobs.REFERENCE}.training:fit_minibatch", "kwargs": {"epochs": 1}}
    network = {"target": "blob_network:build", "kwargs": {"width": 12}}
    train(Settings(), blobs.spec(name, data_uri, loss=loss, factory=network, retrain=training, convex=False))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    config = UnlearnConfig(perturbations=50, damping=1e-6, selection="l_foci" if name == "knows_nothing" else "full")
    outcome = blobs.remove(Settings(), name, [removals], config)
    assert outcome.status is Status.REFUSED
    assert words in outcome.reasons[0]
    assert registry.client.get_run(outcome.run_id).data.params["verdict"] == "refused"


def test_full_selection_of_a_convex_model_needs_no_blanket(settings: Settings, convex: RegisteredVersion) -> None:
    removals = blobs.sample_removals(settings, "one.csv", range(1, 2))
    job = fetch(settings, "convex/1", [removals], UnlearnConfig(selection=BlockChoice.FULL))
    assert isinstance(job, RemovalJob)
    outcome = blobs.remove(settings, "convex/1", [removals], UnlearnConfig(selection=BlockChoice.FULL))
    assert job.area.require(Stage.BLANKET, BlockFacts).facts.block == 21
    assert outcome.removal_key == job.key


CHOICES: list[dict[str, object]] = [
    {"curvature": "hessian"},
    {"curvature": "fisher", "damping": 0.1},
    {"curvature": "sampled_fisher", "damping": 0.1},
    {"curvature": "kfac"},
    {"curvature": "ekfac"},
    {"curvature_samples": 50},
    {"order": "one_at_a_time"},
    {"selection": "random", "block_size": 9},
    {"selection": "top_gradient", "block_size": 9},
    {"selection": "l_foci_batch", "perturbations": 50},
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(str(value) for value in choice.values()))
def test_each_way_to_remove_is_recorded(
    settings: Settings, registry: ModelRegistry, convex: RegisteredVersion, choice: dict[str, object]
) -> None:
    removals = blobs.sample_removals(settings, "two.csv", range(20, 23))
    config = UnlearnConfig.model_validate({**choice, "limits": {"convex_gradient_fraction": 1.0}})
    job = fetch(settings, "convex/1", [removals], config)
    outcome = blobs.remove(settings, "convex/1", [removals], config)
    assert outcome.status in (Status.REGISTERED, Status.REFUSED)
    params = registry.client.get_run(outcome.run_id).data.params
    assert params["selection"] == choice.get("selection", "full")
    assert params["curvature"] == choice.get("curvature", "ggn")
    assert isinstance(job, RemovalJob)
    facts = job.area.require(Stage.UPDATE, UPDATE_FACTS).facts
    assert isinstance(facts, Made)
    # Two steps, or two for each of three samples.
    assert len(facts.steps) == (6 if "order" in choice else 2)
    assert facts.model_gradient < facts.removal_gradient


def test_finite_difference_needs_what_training_kept(
    settings: Settings, registry: ModelRegistry, convex: RegisteredVersion
) -> None:
    removals = blobs.sample_removals(settings, "two.csv", range(20, 23))
    with pytest.raises(ConfigurationError, match="needs a secant"):
        blobs.remove(settings, "convex/1", [removals], UnlearnConfig(curvature="finite_difference"))


def test_finite_difference_takes_the_secant_that_training_kept(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    training = {"target": f"{blobs.REFERENCE}.training:fit_minibatch", "kwargs": {"epochs": 60}}
    train(settings, blobs.spec("secant", data_uri, retrain=training, secant=True))
    removals = blobs.sample_removals(settings, "two.csv", range(20, 23))
    outcome = blobs.remove(settings, "secant", [removals], UnlearnConfig(curvature="finite_difference", damping=1.0))
    run = registry.client.get_run(outcome.run_id).data
    assert run.params["curvature"] == "finite_difference"
    # One direction's curvature is a poor stand-in for all: what is left of the gradient is refused.
    assert outcome.status is Status.REFUSED
    assert run.metrics["retained_gradient_norm"] > 0


def test_a_snapshot_that_is_not_there_is_missed_only_where_it_must_be(
    settings: Settings, registry: ModelRegistry, convex: RegisteredVersion
) -> None:
    # A convex model's removals go by its factor, so training keeps no snapshot.
    assert "oubli.snapshot" not in convex.tags
    removals = blobs.sample_removals(settings, "two.csv", range(20, 23))
    with pytest.raises(ConfigurationError, match="convex/1 has no curvature snapshot") as caught:
        blobs.remove(settings, "convex/1", [removals], UnlearnConfig(use_snapshot="always"))
    assert "'auto'" in caught.value.remedy
