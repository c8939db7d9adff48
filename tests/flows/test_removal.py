"""A removal from end to end, stage by stage, without Prefect."""

from __future__ import annotations

import json
from pathlib import Path

import blobs
import mlflow
import numpy as np
import pytest

from oubli.components.blocks.choosing import Selection as BlockChoice
from oubli.components.errors import ConfigurationError
from oubli.components.gate.gate import GateLimits
from oubli.flows.stages.fetch import fetch
from oubli.flows.training.train import retrain, train
from oubli.registry.errors import TrainingRecordError
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import attach_record, set_alias
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for
from oubli.registry.training.training_record import FactoryReference

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
    settings: Settings, registry: ModelRegistry, unlearned: RegisteredVersion
) -> None:
    removals = blobs.write_removals(settings, "person.csv", "subject_id\nperson-010\n")
    more = blobs.sample_removals(settings, "overlap.csv", range(1, 4))
    outcome = blobs.remove(settings, "convex", [removals, more])
    assert (outcome.status, outcome.parent_version, outcome.version) == (Status.REGISTERED, "2", "3")
    # A person's training rows: one of the four is a test row. The three others were removed by version 2.
    assert (outcome.removed, outcome.already_removed) == (3, 3)
    third = registry.version("convex", "3")
    assert registry.client.get_run(third.run_id).data.params["removed_in_all"] == "13"
    assert set(removed_before(third)) == {
        *(f"sample-{number:04d}" for number in (*range(1, 6), *range(7, 12), 40, 41, 43))
    }


def test_retraining_leaves_out_what_was_removed(
    settings: Settings, registry: ModelRegistry, unlearned: RegisteredVersion
) -> None:
    two = blobs.sample_removals(settings, "two.csv", range(13, 15))
    retrained = retrain(settings, "convex", [two])
    assert len(removed_before(retrained)) == 15
    run = registry.client.get_run(retrained.run_id).data
    assert run.metrics["retained_samples"] == 200 - 15
    assert run.params["method"] == "retrained"
    assert registry.aliases(retrained) == ["challenger"]
    # Again: the same version.
    assert retrain(settings, "convex/3", [two]).version == retrained.version
    # From an older version: it still has what versions 3 and 4 removed, so the alias stays.
    older = retrain(settings, "convex/2", [two])
    assert len(removed_before(older)) == 12
    assert registry.aliases(older) == []
    assert registry.aliases(retrained) == ["challenger"]


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


def test_a_new_training_leaves_out_what_was_removed(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    train(settings, blobs.spec("again", data_uri))
    blobs.remove(settings, "again", [blobs.sample_removals(settings, "three.csv", range(1, 4))])
    trained = train(settings, blobs.spec("again", data_uri, seed=1))
    assert set(removed_before(trained)) == {f"sample-{number:04d}" for number in range(1, 4)}
    assert registry.client.get_run(trained.run_id).data.metrics["retained_samples"] == 197
    assert registry.head("again") == trained


def test_another_training_record_is_another_removal(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    version = train(settings, blobs.spec("corrected", data_uri))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    first = blobs.remove(settings, "corrected/1", [removals])
    record = registry.training_record(version)
    attach_record(registry, version, record.model_copy(update={"l2": 2 * record.l2}))
    second = blobs.remove(settings, "corrected/1", [removals])
    assert second.removal_key != first.removal_key


def test_a_verdict_does_not_outlive_the_weights_it_judged(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    train(settings, blobs.spec("chained", data_uri))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    job = fetch(settings, "chained", [removals], UnlearnConfig())
    assert isinstance(job, RemovalJob)
    blobs.remove(settings, "chained", [removals])
    assert job.area.finished("validate") is not None
    store_for(job.area.root).delete(f"{job.area.root}/gradients/gradients.safetensors")
    assert job.area.finished("gradients") is None
    store_for(job.area.root).write(
        f"{job.area.root}/gradients/manifest.json", b'{"facts": {}, "files": {}, "inputs": {}}'
    )
    assert job.area.finished("update") is None


def test_a_cleaned_work_area_is_no_reason_to_start_again(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    train(settings, blobs.spec("cleaned", data_uri))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    first = blobs.remove(settings, "cleaned@champion", [removals])
    store = store_for(settings.store_root)
    for entry in list(store.list(f"{settings.store_root}/work/{first.removal_key}")):
        store.delete(entry.uri)
    again = blobs.remove(settings, "cleaned@champion", [removals])
    assert (again.status, again.version) == (Status.ALREADY_DONE, "2")
    assert not list(store.list(f"{settings.store_root}/work/{first.removal_key}"))


def test_network_is_updated_on_its_blanket(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    factory = FactoryReference(target="blob_network:build", kwargs={"width": 12})
    # To a minimum, or the gate would find that it is not at one.
    training = FactoryReference(
        target=f"{blobs.REFERENCE}.training:fit_minibatch",
        kwargs={"epochs": 1000, "batch_size": 200, "learning_rate": 0.03},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUBLI_FACTORY_PREFIXES", "oubli.components.reference,blob_network")
        allowing = Settings()
        trained = train(allowing, blobs.spec("network", data_uri, factory=factory, retrain=training, convex=False))
        removals = blobs.sample_removals(allowing, "five.csv", range(1, 7))
        outcome = blobs.remove(
            allowing, "network", [removals], UnlearnConfig(perturbations=200, limits=GateLimits(accuracy_drop=0.05))
        )
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
    allowed = 1 + UnlearnConfig().limits.gradient_rise
    assert run.metrics["retained_gradient_norm"] <= allowed * run.metrics["retained_gradient_norm_parent"]


def test_refusal_promotes_nothing_and_says_why(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    train(settings, blobs.spec("refused", data_uri))
    # All training samples of class 0: test accuracy must fall by about a third.
    labels = blobs.table().column("label").to_pylist()
    rows = [f"sample-{number:04d}" for number, label in enumerate(labels) if label == 0 and number % blobs.TEST_EVERY]
    removals = blobs.write_removals(settings, "class-0.csv", "\n".join(["sample_id", *rows]))
    outcome = blobs.remove(settings, "refused", [removals])
    assert outcome.status is Status.REFUSED
    assert outcome.version is None
    assert "Test accuracy fell by" in outcome.reasons[0]
    assert "oubli train --from refused --removals" in outcome.advice
    assert len(registry.client.search_model_versions("name = 'refused'")) == 1
    run = registry.client.get_run(outcome.run_id)
    assert run.data.params["verdict"] == "refused"
    assert run.info.status == "FINISHED"
    # The same request again is answered from the record, without another run.
    assert blobs.remove(settings, "refused", [removals]) == outcome


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
    assert "Retrain" in outcome.reasons[0]
    assert registry.client.get_run(outcome.run_id).data.params["verdict"] == "refused"


def test_a_version_deleted_by_hand_is_made_again(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    train(settings, blobs.spec("deleted", data_uri))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    first = blobs.remove(settings, "deleted@champion", [removals])
    registry.client.delete_model_version("deleted", first.version)
    second = blobs.remove(settings, "deleted@champion", [removals])
    assert (second.status, second.version) == (Status.REGISTERED, "3")
    assert second.removal_key == first.removal_key


def test_alias_of_someone_elses_version_is_not_taken_for_the_head(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    train(settings, blobs.spec("foreign", data_uri))
    other = train(settings, blobs.spec("foreign", data_uri, seed=1, alias="candidate"))
    set_alias(registry, other, "challenger")
    assert registry.head("foreign").version == "1"


def test_full_selection_of_a_convex_model_needs_no_blanket(settings: Settings, unlearned: RegisteredVersion) -> None:
    removals = blobs.sample_removals(settings, "one.csv", range(1, 2))
    job = fetch(settings, "convex/1", [removals], UnlearnConfig(selection=BlockChoice.FULL))
    assert isinstance(job, RemovalJob)
    outcome = blobs.remove(settings, "convex/1", [removals], UnlearnConfig(selection=BlockChoice.FULL))
    assert job.area.require("blanket").facts["block"] == 21
    assert outcome.removal_key == job.key


def test_register_again_after_a_crash_makes_no_second_version(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    train(settings, blobs.spec("twice", data_uri))
    removals = blobs.sample_removals(settings, "four.csv", range(1, 5))
    first = blobs.remove(settings, "twice@champion", [removals])
    # As after a crash between making the version and recording that it was made.
    store_for(settings.store_root).delete(f"{settings.store_root}/work/{first.removal_key}/register/manifest.json")
    second = blobs.remove(settings, "twice@champion", [removals])
    assert (first.version, second.version) == ("2", "2")
    assert second.status is Status.REGISTERED


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
    facts = job.area.require("update").facts
    # Two steps, or two for each of three samples.
    assert len(facts["steps"]) == (6 if "order" in choice else 2)
    assert facts["model_gradient"] < facts["removal_gradient"]


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


def test_a_trainer_without_epochs_keeps_no_secant(settings: Settings, data_uri: str) -> None:
    with pytest.raises(TrainingRecordError, match="fit_convex takes no `on_epoch`"):
        train(settings, blobs.spec("no-epochs", data_uri, secant=True))


def test_a_snapshot_that_is_not_there_is_missed_only_where_it_must_be(
    settings: Settings, registry: ModelRegistry, convex: RegisteredVersion
) -> None:
    # A convex model's removal takes two steps, so training keeps none.
    assert "oubli.snapshot" not in convex.tags
    removals = blobs.sample_removals(settings, "two.csv", range(20, 23))
    with pytest.raises(ConfigurationError, match="convex/1 has no curvature snapshot") as caught:
        blobs.remove(settings, "convex/1", [removals], UnlearnConfig(use_snapshot="always"))
    assert "'auto'" in caught.value.remedy
