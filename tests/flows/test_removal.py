"""A removal from end to end, stage by stage, without Prefect."""

from __future__ import annotations

from pathlib import Path

import blobs
import mlflow
import numpy as np
import pytest

from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import set_alias
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings

# Whole removals, seconds each.
pytestmark = pytest.mark.slow

COMPARED = UnlearnConfig(compare_with_retraining=True)


@pytest.fixture(scope="module")
def removals(settings: Settings) -> str:
    return blobs.sample_removals(settings, "ten.csv", range(1, 13))


@pytest.fixture(scope="module")
def registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings)


@pytest.fixture(scope="module")
def before(registry: ModelRegistry, convex: RegisteredVersion) -> dict[str, object]:
    """Everything MLflow says of version 1 before anything is removed."""
    return _snapshot(registry, convex)


@pytest.fixture(scope="module")
def unlearned(
    settings: Settings, registry: ModelRegistry, convex: RegisteredVersion, removals: str, before: dict[str, object]
) -> RegisteredVersion:
    """Version 2, without ten samples."""
    outcome = blobs.remove(settings, "convex@champion", [removals], COMPARED)
    assert outcome.status is Status.REGISTERED
    assert (outcome.version, outcome.removed, outcome.already_removed, outcome.unknown) == ("2", 10, 0, 0)
    return registry.version("convex", "2")


def _snapshot(registry: ModelRegistry, version: RegisteredVersion) -> dict[str, object]:
    found = registry.client.get_model_version(version.name, version.version)
    run = registry.client.get_run(version.run_id)
    weights = {name: tensor.numpy().tobytes() for name, tensor in registry.weights(version).items()}
    return {"version": dict(found) | {"aliases": None}, "run": run.to_dictionary(), "weights": weights}


def test_version_1_is_untouched(
    registry: ModelRegistry, convex: RegisteredVersion, before: dict[str, object], unlearned: RegisteredVersion
) -> None:
    assert _snapshot(registry, convex) == before
    assert registry.aliases(convex) == ["champion"]
    assert registry.aliases(unlearned) == ["challenger"]


def test_update_lands_where_retraining_does(registry: ModelRegistry, unlearned: RegisteredVersion) -> None:
    metrics = registry.client.get_run(unlearned.run_id).data.metrics
    # float32 weights: rounding alone is about 1e-5 of the distance that removing ten samples moves them.
    assert metrics["parameter_distance_to_retrained"] < 1e-3
    assert metrics["retained_gradient_norm"] < 1e-3 * metrics["retained_gradient_norm_parent"]
    assert metrics["test_loss"] == pytest.approx(metrics["test_loss_retrained"], abs=1e-5)


def test_loads_through_pyfunc_with_the_parents_signature(
    registry: ModelRegistry, convex: RegisteredVersion, unlearned: RegisteredVersion
) -> None:
    parent, child = (mlflow.pyfunc.load_model(version.uri) for version in (convex, unlearned))
    assert child.metadata.signature == parent.metadata.signature
    inputs = np.random.default_rng(1).normal(size=(5, blobs.FEATURES)).astype(np.float32)
    assert child.predict(inputs).shape == (5, blobs.CLASSES)
    assert not np.array_equal(child.predict(inputs), parent.predict(inputs))


def test_params_and_metrics_line_up_with_the_parents(
    registry: ModelRegistry, convex: RegisteredVersion, unlearned: RegisteredVersion
) -> None:
    parent, child = (registry.client.get_run(version.run_id).data for version in (convex, unlearned))
    assert set(parent.params) == set(child.params)
    assert set(parent.metrics) <= set(child.metrics)
    assert child.params["parent_version"] == "1"
    assert child.params["method"] == "unlearned"
    assert child.metrics["test_loss_parent"] == pytest.approx(parent.metrics["test_loss"])


def test_no_ids_reach_mlflow(registry: ModelRegistry, unlearned: RegisteredVersion) -> None:
    run = registry.client.get_run(unlearned.run_id)
    shown = [str(run.to_dictionary()), unlearned.description, str(dict(unlearned.tags))]
    folder = mlflow.artifacts.download_artifacts(run_id=unlearned.run_id)
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert {"evidence.json", "config.json", "training_record.json"} <= {path.name for path in files}
    shown += [path.name for path in files] + [path.read_text() for path in files]
    assert not any("sample-0" in text or "person-0" in text for text in shown)


def test_same_removal_again_makes_no_third_version(
    settings: Settings, registry: ModelRegistry, unlearned: RegisteredVersion, removals: str
) -> None:
    for model in ("convex@champion", "convex/1", "convex"):
        outcome = blobs.remove(settings, model, [removals], COMPARED)
        assert outcome.status is Status.ALREADY_DONE
        assert outcome.version == "2"
    assert len(registry.client.search_model_versions("name = 'convex'")) == 2


def test_same_ids_in_another_file_order_and_format_are_the_same_removal(
    settings: Settings, unlearned: RegisteredVersion
) -> None:
    lines = [f'{{"sample_id": "sample-{number:04d}"}}' for number in reversed(range(1, 13)) if number % 6]
    again = blobs.write_removals(settings, "ten.jsonl", "\n".join([*lines, lines[0]]))
    outcome = blobs.remove(settings, "convex/1", [again], COMPARED)
    assert (outcome.status, outcome.version) == (Status.ALREADY_DONE, "2")


def test_next_removal_builds_on_the_challenger(
    settings: Settings, registry: ModelRegistry, data_uri: str, removals: str
) -> None:
    train(settings, blobs.spec("next", data_uri))
    blobs.remove(settings, "next", [removals])
    person = blobs.write_removals(settings, "person.csv", "subject_id\nperson-010\n")
    more = blobs.sample_removals(settings, "overlap.csv", range(1, 4))
    outcome = blobs.remove(settings, "next", [person, more])
    assert (outcome.status, outcome.parent_version, outcome.version) == (Status.REGISTERED, "2", "3")
    # A person's training rows: one of the four is a test row. The three others were removed by version 2.
    assert (outcome.removed, outcome.already_removed) == (3, 3)
    third = registry.version("next", "3")
    assert registry.client.get_run(third.run_id).data.params["removed_in_all"] == "13"
    assert set(removed_before(third)) == {
        *(f"sample-{number:04d}" for number in (*range(1, 6), *range(7, 12), 40, 41, 43))
    }


def test_removal_from_an_older_version_does_not_take_the_alias(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    train(settings, blobs.spec("older", data_uri))
    first, second = (blobs.sample_removals(settings, f"{n}.csv", range(n, n + 3)) for n in (1, 7))
    blobs.remove(settings, "older", [first])
    outcome = blobs.remove(settings, "older@champion", [second])
    assert (outcome.status, outcome.parent_version, outcome.version) == (Status.REGISTERED, "1", "3")
    assert "stays at version 2, which also removed 3 samples" in outcome.advice
    assert registry.by_alias("older", "challenger").version == "2"


def test_alias_of_someone_elses_version_is_not_taken_for_the_head(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    train(settings, blobs.spec("foreign", data_uri))
    other = train(settings, blobs.spec("foreign", data_uri, seed=1, alias="candidate"))
    set_alias(registry, other, "challenger")
    assert registry.head("foreign").version == "1"
