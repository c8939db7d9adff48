"""The scope of a training: what is frozen comes out bit for bit as it went in."""

from __future__ import annotations

from typing import Any

import pytest
import scoped_network
import torch
from torch import Tensor, nn
from torch.nn import functional

from oubli.components.errors import ConfigurationError
from oubli.components.model.losses import Loss
from oubli.components.model.samples import Samples
from oubli.components.model.scope import Scope
from oubli.registry.errors import TrainingRecordError
from oubli.registry.settings import Settings
from oubli.registry.training.recipe import Recipe
from oubli.registry.training.training_record import (
    DatasetReference,
    FactoryReference,
    TrainingRecord,
    VectorDecoder,
)

SETTINGS = Settings(device="cpu", factory_prefixes=("oubli", "scoped_network"))
BUFFERS = ("backbone.1.running_mean", "backbone.1.running_var", "backbone.1.num_batches_tracked")


def recipe(trainer: str = "fit", **changes: Any) -> Recipe:
    values = {
        "dataset": DatasetReference(uri="/data", sha256="ab" * 32),
        "decoder": VectorDecoder(columns=("values",)),
        "loss": Loss.CROSS_ENTROPY,
        "l2": 1e-2,
        "n": 30,
        "seed": 3,
        "factory": FactoryReference(target="scoped_network:build"),
        "retrain": FactoryReference(target=f"scoped_network:{trainer}"),
        "convex": True,
        "trained": ("head",),
    }
    return Recipe.of(TrainingRecord.model_validate({**values, **changes}), SETTINGS)


def samples() -> Samples:
    generator = torch.Generator().manual_seed(0)
    return Samples(2 + torch.randn(30, 6, generator=generator), torch.arange(30) % 3)


def elsewhere() -> dict[str, Tensor]:
    """The state of a version whose backbone is not what the factory makes."""
    module = scoped_network.build()
    generator = torch.Generator().manual_seed(9)
    return {
        name: value + 1 if value.dtype == torch.int64 else value + torch.rand(value.shape, generator=generator)
        for name, value in module.state_dict().items()
    }


def same(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


def test_a_retraining_keeps_the_parents_backbone_bit_for_bit() -> None:
    parent = elsewhere()
    state = recipe().train(samples(), frozen=parent).state_dict()
    assert {name for name in state if not same(state[name], parent[name])} == {"head.weight", "head.bias"}
    assert set(BUFFERS) <= set(state)


def test_a_first_training_keeps_what_the_factory_made() -> None:
    made = recipe().untrained().state_dict()
    state = recipe().train(samples()).state_dict()
    assert {name for name in state if not same(state[name], made[name])} == {"head.weight", "head.bias"}


def test_without_a_scope_everything_moves() -> None:
    made = recipe().untrained().state_dict()
    state = recipe(trained=None).train(samples()).state_dict()
    # Batch normalisation in training mode takes out what the bias before it adds; its gradient is rounding.
    assert {name for name in state if same(state[name], made[name])} <= {"backbone.0.bias"}


def test_the_head_is_trained_on_what_the_backbone_does_in_evaluation() -> None:
    # Slow oracle: features first, then the very same descent on the head alone.
    parent = elsewhere()
    state = recipe().train(samples(), frozen=parent).state_dict()
    module = scoped_network.build()
    module.load_state_dict(parent)
    with torch.no_grad():
        features = module.eval().backbone(samples().inputs)
    head = recipe().untrained().head
    alone = scoped_network.fit(
        head, Samples(features, samples().labels), loss=lambda a, b: functional.cross_entropy(a, b, reduction="none"),
        l2=1e-2, seed=3,
    )  # fmt: skip
    torch.testing.assert_close(state["head.weight"], alone.weight, rtol=0, atol=1e-6)


def test_a_trainer_that_moves_the_backbone_is_found_out() -> None:
    with pytest.raises(TrainingRecordError, match=r"fit_everything changed what .* frozen: backbone\.0\.weight"):
        recipe("fit_everything").train(samples())


def test_a_scope_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'tail'"):
        recipe(trained=("tail",)).train(samples())


def test_frozen_weights_that_do_not_fit_are_refused() -> None:
    parent = elsewhere()
    del parent["backbone.0.weight"]
    with pytest.raises(ConfigurationError, match=r"backbone\.0\.weight"):
        recipe().train(samples(), frozen=parent)


def test_an_objective_knows_only_what_was_trained() -> None:
    one = recipe()
    assert one.objective(one.untrained()).space.names == ("head.weight", "head.bias")
    assert recipe(trained=None).objective(one.untrained()).space.d == sum(
        parameter.numel() for parameter in one.untrained().parameters()
    )


def test_a_module_is_left_as_it_was() -> None:
    module = scoped_network.build()
    scope = Scope.of(module, ("head",))
    with scope.held(module):
        module.train()
        assert [name for name, value in module.named_parameters() if value.requires_grad] == [
            "head.weight",
            "head.bias",
        ]
        module(samples().inputs)
        assert not module.backbone[1].training
        assert module.head.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    module.train()
    module(samples().inputs)
    assert module.backbone[1].training


def test_buffers_of_a_trained_module_are_trained() -> None:
    module = scoped_network.build()
    assert set(BUFFERS).isdisjoint(Scope.of(module, ("backbone.1",)).frozen)
    # Of a layer of which one parameter alone is named, the statistics stay.
    only_weight = Scope.of(module, ("backbone.1.weight",))
    assert set(BUFFERS) <= set(only_weight.frozen)
    with only_weight.held(module):
        module.train()
        module(samples().inputs)
        assert not module.backbone[1].training


def test_a_tied_parameter_is_trained_under_all_its_names() -> None:
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    module["b"].weight = module["a"].weight
    assert Scope.of(module, ("a.weight",)).frozen == ("a.bias", "b.bias")
