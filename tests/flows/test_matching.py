"""Removal by matching, from end to end: what it moves and leaves, chains, the ladder, and what follows a refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import blobs
import memorised
import mlflow
import pytest
import torch

from oubli.components.gate.limits import GateLimits
from oubli.flows.stages.planning import plan_removal
from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.models.original_outputs import load_outputs
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.removals.unlearn_config import UnlearnConfig, Way, WhenRefused
from oubli.registry.settings import Settings

# Whole removals, seconds each; what other stores do with them is tested elsewhere.
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("settings", ["local"], indirect=True, scope="module")]

# What is tested is not how much is forgotten, so the gate is generous where few samples make a figure coarse.
MATCHING = UnlearnConfig(
    method=Way.MATCHING,
    surrogate_epochs=8,
    matching_steps=100,
    perturbations=200,
    limits=GateLimits(excess_as_labelled=0.6, accuracy_drop=0.1),
)
NOTHING_PASSES = GateLimits(excess_divergence=0.0, excess_rank=0.0, drift=1e-9)


@pytest.fixture(scope="module")
def allowing(settings: Settings) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUBLI_FACTORY_PREFIXES", memorised.PREFIXES)
        yield Settings()


@pytest.fixture(scope="module")
def registry(allowing: Settings) -> ModelRegistry:
    return ModelRegistry(allowing)


@pytest.fixture(scope="module")
def first(allowing: Settings) -> RemovalOutcome:
    """Half of the mislabelled rows removed from version 1, which is deleted afterwards."""
    train(allowing, memorised.spec(allowing, "chain"))
    return blobs.remove(allowing, "chain", [memorised.removals(allowing, range(10))], MATCHING)


def stages(outcome: RemovalOutcome) -> dict[str, dict[str, object]]:
    evidence = mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/oubli/evidence.json")
    found: dict[str, dict[str, object]] = json.loads(evidence)["stages"]
    return found


def test_what_was_memorised_is_forgotten(first: RemovalOutcome, registry: ModelRegistry) -> None:
    assert first.status is Status.REGISTERED, first.reasons
    run = registry.client.get_run(first.run_id).data
    assert run.params["curvature"] == "none (matching)"
    assert run.metrics["forget_accuracy_parent"] == 1.0
    assert run.metrics["forget_accuracy"] <= 0.5
    assert run.metrics["retained_accuracy"] > run.metrics["retained_accuracy_parent"] - 0.05
    assert run.metrics["test_samples"] == memorised.TEST


def test_all_parameters_move_and_statistics_with_them(first: RemovalOutcome, registry: ModelRegistry) -> None:
    parent, child = (registry.weights(registry.version("chain", version)) for version in ("1", "2"))
    still = {name for name in parent if torch.equal(parent[name], child[name])}
    assert not still
    found = stages(first)
    # The blanket limits nothing, and is evidence.
    assert found["blanket"]["block"] == found["blanket"]["parameters"]
    assert found["blanket"]["slices"]
    assert found["update"]["moved_in_blanket"] > 0


def test_the_record_says_what_decided_and_what_taught(first: RemovalOutcome) -> None:
    found = stages(first)
    assert (found["fetch"]["held_out_from"], found["fetch"]["held_out"]) == ("validation", memorised.VALIDATION)
    assert found["surrogate"]["settings"] == "from the recipe"
    assert found["surrogate"]["epochs"] == 8
    assert found["audit"]["auditors"] == 2
    assert found["update"]["original"] == "the parent, as it was trained"
    assert found["update"]["removed_in_all"] == 10
    assert found["update"]["retained"] == memorised.TRAIN - 10


def test_a_chain_goes_on_with_the_original_deleted(
    allowing: Settings, registry: ModelRegistry, first: RemovalOutcome
) -> None:
    registry.client.delete_registered_model_alias("chain", "champion")
    registry.client.delete_model_version("chain", "1")
    second = blobs.remove(allowing, "chain/2", [memorised.removals(allowing, range(10, 20))], MATCHING)
    assert second.status is Status.REGISTERED, second.reasons
    update = stages(second)["update"]
    assert update["original"] == "the table of version 2"
    assert (update["removed_in_all"], update["retained"]) == (20, memorised.TRAIN - 20)
    # Each version's table lacks what the version lacks.
    for version, count in (("2", 10), ("3", 20)):
        kept = load_outputs(registry.version("chain", version))
        assert kept is not None
        assert len(kept.retained_ids) == memorised.TRAIN - count
        assert len(kept.held_out_ids) == memorised.VALIDATION
        assert not set(kept.retained_ids) & set(removed_before(registry.version("chain", version)))


def test_a_refusal_goes_down_the_ladder_to_retraining(allowing: Settings, registry: ModelRegistry) -> None:
    train(allowing, memorised.spec(allowing, "ladder"))
    files = [memorised.removals(allowing, range(10))]
    config = UnlearnConfig(limits=NOTHING_PASSES, when_refused=WhenRefused.RETRAIN, perturbations=50)
    assert plan_removal(allowing, "ladder/1", files, config).tried == (Way.MATCHING, Way.NEWTON)
    outcome = blobs.unlearn(allowing, "ladder/1", files, config)
    assert (outcome.status, outcome.version, outcome.removed) == (Status.RETRAINED, "2", 10)
    assert {reason.partition(":")[0] for reason in outcome.reasons} == {"Matching", "Newton"}
    version = registry.version("ladder", "2")
    assert version.ancestors == ("1",)
    assert len(removed_before(version)) == 10
    assert registry.aliases(version) == ["challenger"]
    # Each way left a run of its own, and asking again makes neither run nor version.
    runs = len(registry.client.search_runs([registry.client.get_run(outcome.run_id).info.experiment_id]))
    again = blobs.unlearn(allowing, "ladder/1", files, config)
    assert (again.status, again.version, again.removal_key) == (Status.ALREADY_DONE, "2", outcome.removal_key)
    assert len(registry.versions("ladder")) == 2
    assert len(registry.client.search_runs([registry.client.get_run(outcome.run_id).info.experiment_id])) == runs
    # By the model's name, whose head now lacks them.
    assert blobs.unlearn(allowing, "ladder", files, config).status is Status.ALREADY_DONE
    reported = blobs.unlearn(
        allowing, "ladder/1", files, config.model_copy(update={"when_refused": WhenRefused.REPORT})
    )
    assert (reported.status, reported.reasons) == (Status.REFUSED, outcome.reasons)


def test_a_warm_retraining_is_no_origin(allowing: Settings, registry: ModelRegistry) -> None:
    train(allowing, memorised.spec(allowing, "warm"))
    files = [memorised.removals(allowing, range(10))]
    warm = UnlearnConfig(ladder=(Way.MATCHING,), limits=NOTHING_PASSES, when_refused=WhenRefused.RETRAIN_WARM)
    outcome = blobs.unlearn(allowing, "warm/1", files, warm)
    cold = blobs.unlearn(allowing, "warm/1", files, UnlearnConfig(method=Way.RETRAIN))
    assert (outcome.status, outcome.version, cold.status, cold.version) == (
        Status.RETRAINED,
        "2",
        Status.RETRAINED,
        "3",
    )
    methods = [registry.version("warm", version).tags["oubli.method"] for version in ("2", "3")]
    assert methods == ["retrained_warm", "retrained"]
