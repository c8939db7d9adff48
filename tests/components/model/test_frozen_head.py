from __future__ import annotations

import pytest
import torch
from torch import nn

from oubli.components.errors import ConfigurationError
from oubli.components.measures.evaluation import parameter_distance
from oubli.components.model.frozen_head import frozen_head
from oubli.components.model.gradients import RemovedGradient, objective_gradient
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.reference.training import fit_convex
from oubli.components.removal.damping import Undamped
from oubli.components.removal.newton import NewtonPlan, newton_removal

L2 = 1e-2


class Classifier(nn.Module):
    """A backbone with batch normalisation and dropout under a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
        )
        self.head = nn.Linear(64, 3)

    def forward(self, inputs):
        return self.head(self.backbone(inputs))


class TwoHeads(Classifier):
    def forward(self, inputs):
        features = self.backbone(inputs)
        return self.head(features) + self.head(2 * features)


class Rescaled(Classifier):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


@pytest.fixture
def classifier() -> nn.Module:
    return build_seeded(Classifier, 3)


def of(module: nn.Module, *trained: str) -> Objective:
    return Objective(module, cross_entropy, L2, trained=trained)


def test_the_objective_is_that_of_the_head_alone(classifier, images):
    objective = of(classifier, "head")
    assert objective.space.names == ("head.weight", "head.bias")
    head = frozen_head(objective, images)
    assert head is not None
    assert (head.name, head.linear) == ("head", True)
    theta = objective.theta()
    assert torch.equal(head.objective.theta(), theta)
    features = head.features(images)
    assert isinstance(features, Samples)
    torch.testing.assert_close(
        objective_gradient(head.objective, theta, features), objective_gradient(objective, theta, images)
    )


def test_features_beyond_the_budget_are_computed_at_each_pass(classifier, images):
    head = frozen_head(of(classifier, "head"), images)
    assert head is not None
    kept = head.features(images)
    streamed = head.features(images, budget_bytes=1)
    assert not isinstance(streamed, Samples)
    assert len(streamed) == len(images)
    torch.testing.assert_close(torch.cat([one.inputs for one in streamed.batches(7)]), kept.inputs)
    assert torch.equal(torch.cat([one.labels for one in streamed.batches(7)]), images.labels)


def test_a_removal_on_features_is_the_removal_on_the_model_and_lands_at_retraining(classifier, images):
    objective = of(classifier, "head")
    head = frozen_head(objective, images)
    assert head is not None
    features = head.features(images)
    start = fit_convex(head.objective.module, features, loss=cross_entropy, l2=L2)
    theta = head.objective.space.theta_of(start)
    keep, drop = torch.arange(2, 20), torch.arange(2)

    def update(on: Objective, samples: Samples) -> torch.Tensor:
        removed = RemovedGradient.of(on, theta, samples.select(drop))
        plan = NewtonPlan(2, Undamped(), convex=True)
        return newton_removal(on, theta, samples.select(keep), removed, plan).theta

    on_features = update(head.objective, features)
    torch.testing.assert_close(on_features, update(objective, images), rtol=1e-7, atol=1e-9)
    retrained = head.objective.space.theta_of(
        fit_convex(build_seeded(lambda: nn.Linear(64, 3), 0).double(), features.select(keep), loss=cross_entropy, l2=L2)
    )
    assert parameter_distance(on_features, retrained, relative_to=theta) < 0.05


@pytest.mark.parametrize("build", [TwoHeads, Rescaled])
def test_no_head_where_its_output_is_not_the_models(build, images):
    assert frozen_head(of(build(), "head"), images) is None


def test_no_head_where_all_is_trained_or_no_module_holds_the_scope(classifier, images):
    assert frozen_head(Objective(classifier, cross_entropy, L2), images) is None
    assert frozen_head(of(classifier, "head", "backbone.0.weight"), images) is None


def test_no_head_where_a_parameter_is_tied_to_the_backbone(images):
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    module[3].weight = module[1].weight
    # A step on the head would move the backbone.
    assert frozen_head(of(module, "3"), images) is None


def test_a_head_of_two_layers_is_no_linear_one(images):
    module = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)))
    frozen = nn.Sequential(nn.Linear(16, 16), module[1])
    whole = nn.Sequential(nn.Flatten(), frozen)
    head = frozen_head(of(whole, "1.1"), images)
    assert head is not None
    assert not head.linear


def test_a_scope_that_names_nothing_is_an_error(classifier):
    with pytest.raises(ConfigurationError, match="'classifier'"):
        of(classifier, "classifier")
    with pytest.raises(ConfigurationError, match="No parameter was trained"):
        of(classifier)


def test_a_tied_parameter_is_trained_under_any_of_its_names():
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    assert of(module, "2").space.names == ("0.weight", "2.bias")
