"""Looking versions up: heads, aliases, outcomes, records and weights, in a real MLflow on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import pytest
import torch
from records import training_record
from torch import nn

from oubli.components.errors import ConfigurationError
from oubli.registry.errors import DigestMismatch, ModelNotFound, PickledModelRefused, RegistryError, TrainingRecordError
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.models.registration import attach_record, set_alias
from oubli.registry.models.weights import save_weights
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for

Make = Callable[..., RegisteredVersion]

RECORD = training_record()


@pytest.fixture
def registry(tmp_path: Path, new_database: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    """A registry of the test's own: messages list what it holds."""
    home = tmp_path / "home"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_database(home))
    return ModelRegistry(Settings(home=home))


_NUMBERS = count(1)


@pytest.fixture
def name(registry: ModelRegistry) -> str:
    """A registered model without versions."""
    name = f"model-{next(_NUMBERS)}"
    registry.client.create_registered_model(name)
    return name


@pytest.fixture
def make(registry: ModelRegistry, name: str, tmp_path: Path) -> Make:
    """Makes a version whose artifacts are a folder."""

    def make(
        *, parent: str | None = None, alias: str | None = None, tags: Mapping[str, str] | None = None
    ) -> RegisteredVersion:
        lineage = {} if parent is None else registry.version(name, parent).child_tags()
        created = registry.client.create_model_version(name, str(tmp_path), tags={**lineage, **(tags or {})})
        version = registry.version(name, str(created.version))
        if alias is not None:
            set_alias(registry, version, alias)
        return version

    return make


def test_a_version_is_what_mlflow_says(registry: ModelRegistry, name: str, make: Make) -> None:
    version = make(tags={"oubli.method": "trained"}, alias="champion")
    assert version == RegisteredVersion(
        name=name, version="1", run_id=None, tags={"oubli.method": "trained"}, description=""
    )
    assert (version.label, version.uri) == (f"{name}/1", f"models:/{name}/1")
    assert registry.version(name, "1") == registry.by_alias(name, "champion") == version


def test_a_model_is_found_among_many(registry: ModelRegistry) -> None:
    # A search answers in pages of 100.
    for number in range(101):
        registry.client.create_registered_model(f"zy-{number:03d}")
    registry.client.create_registered_model("zz-last")
    with pytest.raises(ModelNotFound, match=r"'zz-last' has no version 7"):
        registry.version("zz-last", "7")


def test_aliases_are_sorted(registry: ModelRegistry, make: Make) -> None:
    version = make()
    assert registry.aliases(version) == []
    for alias in ("production", "champion"):
        set_alias(registry, version, alias)
    assert registry.aliases(version) == ["champion", "production"]


def test_an_alias_moves_in_one_step(registry: ModelRegistry, name: str, make: Make) -> None:
    first, second = make(alias="champion"), make()
    set_alias(registry, second, "champion")
    assert registry.by_alias(name, "champion") == second
    assert registry.aliases(first) == []


def test_each_way_to_name_a_version(registry: ModelRegistry, name: str, make: Make) -> None:
    champion, challenger = make(alias="champion"), make(parent="1", alias="challenger")
    other = make(alias="candidate")
    assert registry.resolve(name) == challenger
    assert registry.resolve(f"{name}@champion") == champion
    assert registry.resolve(f"{name}@candidate") == other
    assert registry.resolve(f"{name}/3") == other
    with pytest.raises(ConfigurationError, match="does not name"):
        registry.resolve(f"{name}/latest")


def test_head_is_the_champion_where_there_is_no_challenger(registry: ModelRegistry, name: str, make: Make) -> None:
    champion = make(alias="champion")
    make(parent="1")
    assert registry.head(name) == champion


@pytest.mark.parametrize("generations", [1, 2, 5])
def test_head_is_a_challenger_that_descends_from_the_champion(
    registry: ModelRegistry, name: str, make: Make, generations: int
) -> None:
    version = make(alias="champion")
    for _ in range(generations):
        version = make(parent=version.version)
    set_alias(registry, version, "challenger")
    assert registry.head(name) == version


def test_head_is_the_champion_once_the_challenger_was_promoted(registry: ModelRegistry, name: str, make: Make) -> None:
    make()
    promoted = make(parent="1", alias="champion")
    set_alias(registry, promoted, "challenger")
    assert registry.head(name) == promoted


@pytest.mark.parametrize("parent", [None, "1"])
def test_head_is_a_champion_that_the_challenger_does_not_descend_from(
    registry: ModelRegistry, name: str, make: Make, parent: str | None
) -> None:
    # Retrained from scratch, or removed from an older version: the served lineage is the champion's.
    make()
    champion = make(parent="1", alias="champion")
    make(parent=parent, alias="challenger")
    assert registry.head(name) == champion


def test_no_head_without_a_champion(registry: ModelRegistry, name: str, make: Make) -> None:
    make(alias="challenger")
    with pytest.raises(ModelNotFound, match=r"has no alias 'champion'.*\[1\].*@challenger \(version 1\)"):
        registry.head(name)


def test_what_is_missing_is_told_with_what_is_there(registry: ModelRegistry, name: str, make: Make) -> None:
    with pytest.raises(ModelNotFound, match=r"has no version 7; it has versions \[\] and aliases none"):
        registry.version(name, "7")
    make()
    with pytest.raises(ModelNotFound, match=r"has no version 7; it has versions \[1\] and aliases none"):
        registry.version(name, "7")
    with pytest.raises(ModelNotFound, match=rf"'nobody'.*has: .*{name}") as caught:
        registry.version("nobody", "1")
    assert caught.value.remedy


def test_an_outcome_is_found_by_its_name(registry: ModelRegistry, name: str, make: Make) -> None:
    make(alias="champion")
    assert registry.by_removal_key(name, "0123") is None
    first = make(parent="1", tags={"oubli.removal_key": "0123"})
    make(parent="1", tags={"oubli.removal_key": "4567"})
    assert registry.by_removal_key(name, "0123") == first
    assert registry.by_removal_key(name, "012") is None
    assert registry.by_removal_key("another", "0123") is None


def test_of_two_versions_of_an_outcome_the_first_counts(registry: ModelRegistry, name: str, make: Make) -> None:
    versions = [make(tags={"oubli.removal_key": "0123"}) for _ in range(11)]
    # As numbers: the text "10" comes before "2".
    registry.client.delete_model_version(name, "1")
    assert registry.by_removal_key(name, "0123") == versions[1]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tmp_path_factory.mktemp("store").as_uri()


@pytest.fixture
def recorded(registry: ModelRegistry, name: str, make: Make, store: str) -> RegisteredVersion:
    """A version with a training record, attached after it was registered."""
    version = make()
    attach_record(_storing_at(registry, store), version, RECORD)
    return registry.version(name, version.version)


def _storing_at(registry: ModelRegistry, store: str) -> ModelRegistry:
    return ModelRegistry(registry.settings.model_copy(update={"store": store}))


def test_the_training_record_comes_back(registry: ModelRegistry, recorded: RegisteredVersion, store: str) -> None:
    assert recorded.tags["oubli.record"].startswith(store)
    assert registry.training_record(recorded) == RECORD


def test_an_altered_record_is_not_trusted(registry: ModelRegistry, recorded: RegisteredVersion) -> None:
    uri = recorded.tags["oubli.record"]
    store_for(uri).write(uri, RECORD.model_copy(update={"n": 199}).to_json().encode())
    with pytest.raises(DigestMismatch, match=recorded.label) as caught:
        registry.training_record(recorded)
    assert uri in caught.value.problem


def test_a_version_without_a_record(registry: ModelRegistry, make: Make) -> None:
    version = make()
    with pytest.raises(TrainingRecordError, match=f"{version.label} has no training record") as caught:
        registry.training_record(version)
    assert "attach_record" in caught.value.remedy


def test_safetensors_weights(registry: ModelRegistry, make: Make, tmp_path: Path) -> None:
    weights = nn.Linear(3, 2).state_dict()
    save_weights(weights, tmp_path / "model.safetensors")
    found = registry.weights(make())
    assert set(found) == set(weights)
    assert all(torch.equal(found[each], weights[each]) for each in weights)


@pytest.mark.slow
def test_exported_weights_come_before_others(registry: ModelRegistry, make: Make, tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    (tmp_path / "data").mkdir()
    torch.export.save(torch.export.export(module, (torch.zeros(2, 3),)), tmp_path / "data" / "model.pt2")
    torch.save(module, tmp_path / "data" / "model.pth")
    save_weights({"another": torch.zeros(1)}, tmp_path / "data" / "model.safetensors")
    found = registry.weights(make())
    assert torch.equal(found["weight"], module.weight)
    assert "another" not in found


def test_pickled_weights_are_refused_unless_allowed(registry: ModelRegistry, make: Make, tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    torch.save(module, tmp_path / "model.pth")
    version = make()
    with pytest.raises(PickledModelRefused, match=version.label) as caught:
        registry.weights(version)
    assert "OUBLI_ALLOW_PICKLED_MODELS" in caught.value.remedy
    trusting = ModelRegistry(registry.settings.model_copy(update={"allow_pickled_models": True}))
    assert torch.equal(trusting.weights(version)["weight"], module.weight)


def test_a_version_that_holds_no_weights(registry: ModelRegistry, make: Make, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(RegistryError, match=r"holds no torch weights") as caught:
        registry.weights(make())
    assert "pt2" in caught.value.remedy
