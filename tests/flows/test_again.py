"""A removal that is asked for again: finished work is found, and what is missing is made anew."""

from __future__ import annotations

import blobs
import pytest

from oubli.flows.job.facts import UPDATE_FACTS, BlockFacts, GradientFacts, Stage, ValidateFacts
from oubli.flows.stages.fetch import fetch
from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.models.registration import attach_record
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for

# Whole removals, seconds each.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings)


def test_a_verdict_does_not_outlive_the_weights_it_judged(
    settings: Settings, registry: ModelRegistry, data_uri: str
) -> None:
    train(settings, blobs.spec("chained", data_uri))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    job = fetch(settings, "chained", [removals], UnlearnConfig())
    assert isinstance(job, RemovalJob)
    blobs.remove(settings, "chained", [removals])
    assert job.area.finished(Stage.VALIDATE, ValidateFacts) is not None
    store_for(job.area.root).delete(f"{job.area.root}/gradients/gradients.safetensors")
    assert job.area.finished(Stage.GRADIENTS, GradientFacts) is None
    store_for(job.area.root).write(
        f"{job.area.root}/gradients/manifest.json", b'{"stage": "gradients", "facts": {}, "files": {}, "inputs": {}}'
    )
    assert job.area.finished(Stage.UPDATE, UPDATE_FACTS) is None


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


def test_a_version_deleted_by_hand_is_made_again(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    train(settings, blobs.spec("deleted", data_uri))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    first = blobs.remove(settings, "deleted@champion", [removals])
    registry.client.delete_model_version("deleted", first.version)
    second = blobs.remove(settings, "deleted@champion", [removals])
    assert (second.status, second.version) == (Status.REGISTERED, "3")
    assert second.removal_key == first.removal_key


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


def test_another_training_record_is_another_removal(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    version = train(settings, blobs.spec("corrected", data_uri))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    first = blobs.remove(settings, "corrected/1", [removals])
    record = registry.training_record(version)
    attach_record(registry, version, record.model_copy(update={"l2": 2 * record.l2}))
    second = blobs.remove(settings, "corrected/1", [removals])
    assert second.removal_key != first.removal_key


def test_work_of_another_version_of_oubli_is_done_again(settings: Settings, data_uri: str) -> None:
    train(settings, blobs.spec("upgraded", data_uri))
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    job = fetch(settings, "upgraded", [removals], UnlearnConfig())
    assert isinstance(job, RemovalJob)
    for stage in (Stage.GRADIENTS, Stage.BLANKET):
        blobs.COMPUTING[stage](settings, job)
    uri = f"{job.area.root}/blanket/manifest.json"
    store = store_for(uri)
    store.write(uri, store.read(uri).replace(b'"candidate_slices"', b'"candidates"'))
    assert job.area.finished(Stage.BLANKET, BlockFacts) is None
    assert blobs.remove(settings, "upgraded", [removals]).status is Status.REGISTERED
    assert job.area.finished(Stage.BLANKET, BlockFacts) is not None
