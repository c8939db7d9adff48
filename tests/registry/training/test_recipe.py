"""Recipes: import strings turned into a module, its loss and its training."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from oubli.components.model.losses import Loss, cross_entropy
from oubli.components.model.samples import Samples
from oubli.registry.errors import FactoryNotAllowed, RegistryError
from oubli.registry.settings import Settings
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_record import (
    DatasetReference,
    FactoryReference,
    Precision,
    TrainingRecord,
    VectorDecoder,
)

REFERENCE = "oubli.components.reference"
SETTINGS = Settings(device="cpu")


def record(**changes: Any) -> TrainingRecord:
    values = {
        "dataset": DatasetReference(uri="/data", sha256="ab" * 32),
        "decoder": VectorDecoder(columns=("values",)),
        "loss": Loss.CROSS_ENTROPY,
        "l2": 1e-2,
        "n": 30,
        "seed": 3,
        "factory": FactoryReference(
            target=f"{REFERENCE}.models:logistic_regression", kwargs={"features": 4, "classes": 3}
        ),
        "retrain": FactoryReference(target=f"{REFERENCE}.training:fit_convex"),
        "convex": True,
    }
    return TrainingRecord.model_validate({**values, **changes})


NETWORK = {
    "factory": FactoryReference(target="blob_network:build", kwargs={"width": 5}),
    "retrain": FactoryReference(target=f"{REFERENCE}.training:fit_minibatch", kwargs={"epochs": 2, "batch_size": 10}),
    "convex": False,
}
ALLOWING = Settings(device="cpu", factory_prefixes=("oubli", "blob_network"))


def samples(features: int = 4) -> Samples:
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(30, features, generator=generator), torch.arange(30) % 3)


def state(module: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in module.state_dict().items()}


def test_the_seed_decides_the_initialisation() -> None:
    recipe = Recipe.of(record(**NETWORK), ALLOWING)
    assert state(recipe.untrained()) == state(recipe.untrained())
    other = Recipe.of(record(**NETWORK, seed=4), ALLOWING)
    assert state(other.untrained()) != state(recipe.untrained())


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    Recipe.of(record(**NETWORK), ALLOWING).untrained()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("dtype", "convex", "weights", "computing"),
    [
        (Precision.FLOAT32, True, torch.float32, torch.float64),
        (Precision.FLOAT32, False, torch.float32, torch.float32),
        (Precision.FLOAT64, True, torch.float64, torch.float64),
        (Precision.FLOAT64, False, torch.float64, torch.float64),
    ],
)
def test_number_formats(dtype: Precision, convex: bool, weights: torch.dtype, computing: torch.dtype) -> None:
    recipe = Recipe.of(record(dtype=dtype, convex=convex), SETTINGS)
    assert {parameter.dtype for parameter in recipe.untrained().parameters()} == {weights}
    assert recipe.dtype == weights
    assert recipe.compute_dtype == computing


def test_every_precision_has_a_number_format() -> None:
    for precision in Precision:
        assert str(Recipe.of(record(dtype=precision), SETTINGS).dtype) == f"torch.{precision.value}"


def test_a_module_gets_exactly_the_given_weights() -> None:
    recipe = Recipe.of(record(), SETTINGS)
    weights = {name: torch.full_like(tensor, 0.5) for name, tensor in recipe.untrained().state_dict().items()}
    module = recipe.module(weights)
    assert state(module) == {name: tensor.flatten().tolist() for name, tensor in weights.items()}
    assert not module.training


@pytest.mark.parametrize("wrong", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused(wrong: str) -> None:
    recipe = Recipe.of(record(), SETTINGS)
    weights = dict(recipe.untrained().state_dict())
    name = next(iter(weights))
    if wrong == "missing":
        del weights[name]
    elif wrong == "extra":
        weights["another"] = torch.zeros(1)
    else:
        weights[name] = torch.zeros(7, 4)
    with pytest.raises(RegistryError, match=r"models:logistic_regression") as caught:
        recipe.module(weights)
    assert ("another" if wrong == "extra" else name) in caught.value.problem
    assert caught.value.remedy


def test_losses_by_name_and_by_import_string() -> None:
    outputs, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    by_name = Recipe.of(record(), SETTINGS)
    allowing = SETTINGS.model_copy(update={"factory_prefixes": ("oubli.components",)})
    by_import = Recipe.of(record(loss="oubli.components.model.losses:cross_entropy"), allowing)
    expected = functional.cross_entropy(outputs, labels, reduction="none")
    assert by_import.loss is cross_entropy
    for recipe in (by_name, by_import):
        torch.testing.assert_close(recipe.loss(outputs, labels), expected)


@pytest.mark.parametrize("field", ["factory", "retrain", "loss"])
def test_each_import_string_is_under_the_allow_list(field: str) -> None:
    target = "subprocess:run"
    with pytest.raises(FactoryNotAllowed, match=r"'subprocess:run' is outside the allowed prefixes"):
        Recipe.of(record(**{field: target if field == "loss" else FactoryReference(target=target)}), SETTINGS)


def test_training_reaches_the_minimum_of_the_records_objective() -> None:
    data = samples()
    module = Recipe.of(record(), SETTINGS).train(data)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert not module.training
    module = module.double()
    loss = functional.cross_entropy(module(data.inputs.double()), data.labels)
    objective = loss + 0.5e-2 * sum(parameter.square().sum() for parameter in module.parameters())
    gradients = torch.autograd.grad(objective, list(module.parameters()))
    # What is left is the rounding of the weights to float32.
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-6


def test_training_again_gives_the_same_weights() -> None:
    recipe = Recipe.of(record(**NETWORK), ALLOWING)
    first, second = (recipe.train(samples(6)) for _ in range(2))
    assert state(first) == state(second)
    assert state(first) != state(recipe.untrained())


def test_training_reports_how_far_it_is() -> None:
    seen: list[float] = []
    Recipe.of(record(**NETWORK), ALLOWING).train(samples(6), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def as_it_is(module: nn.Module, samples: Samples, *, loss: object, l2: float, seed: int) -> nn.Module:
    """A trainer without progress."""
    assert (l2, seed, len(samples)) == (1e-2, 3, 30)
    return module


def test_a_trainer_need_not_report(monkeypatch: pytest.MonkeyPatch) -> None:
    # Under a name of its own: tests are no importable package.
    trainer = ModuleType("my_trainer")
    monkeypatch.setattr(as_it_is, "__module__", "my_trainer")
    trainer.as_it_is = as_it_is  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_trainer", trainer)
    settings = Settings(device="cpu", factory_prefixes=("oubli", "my_trainer"))
    recipe = Recipe.of(record(retrain=FactoryReference(target="my_trainer:as_it_is")), settings)
    assert state(recipe.train(samples())) == state(recipe.untrained())
