from __future__ import annotations

import math

import pytest
import torch

from oubli.components.errors import ConfigurationError
from oubli.components.measures.evaluation import ThreeSets, evaluate, retained_gradient_norm
from oubli.components.measures.measurement import measure
from oubli.components.measures.membership import membership_inference
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples


@pytest.fixture
def three_sets(images: Samples) -> tuple[Samples, Samples, Samples]:
    return tuple(images.select(torch.arange(*span)) for span in ((0, 4), (4, 13), (13, 20)))


def test_a_measurement_is_what_its_parts_measure_one_by_one(network_objective: Objective, three_sets) -> None:
    theta = network_objective.theta()
    removed, retained, test = three_sets
    found = measure(network_objective, theta, removed, retained, test)
    assert found.sets == ThreeSets(*(evaluate(network_objective, theta, source) for source in three_sets))
    assert found.gradient_norm == retained_gradient_norm(network_objective, theta, retained)
    assert found.forget_membership == membership_inference(network_objective, theta, removed, test)
    assert found.retained_membership == membership_inference(network_objective, theta, retained, test)


def test_metrics_have_names_and_a_suffix(network_objective: Objective, three_sets) -> None:
    found = measure(network_objective, network_objective.theta(), *three_sets)
    named = found.metrics("_parent")
    assert set(named) == {
        f"{name}_parent"
        for name in (
            "forget_loss", "forget_accuracy", "retained_loss", "retained_accuracy", "test_loss", "test_accuracy",
            "forget_membership_auc", "forget_membership_auc_error",
            "retained_membership_auc", "retained_membership_auc_error", "retained_gradient_norm",
        )
    }  # fmt: skip
    assert named["retained_loss_parent"] == found.retained.loss
    assert named["forget_membership_auc_error_parent"] == max(
        found.forget_membership.standard_error, found.forget_membership.chance_error
    )
    assert found.metrics() == {name.removesuffix("_parent"): value for name, value in named.items()}


def test_a_model_that_has_just_been_trained_has_no_removed_samples(network_objective: Objective, three_sets) -> None:
    _, retained, test = three_sets
    found = measure(network_objective, network_objective.theta(), None, retained, test)
    assert found.forget is None
    assert found.forget_membership is None
    assert not any(name.startswith("forget") for name in found.metrics())
    with pytest.raises(ConfigurationError, match="not measured on removed"):
        _ = found.sets


def test_without_test_samples_nothing_is_compared_with_them(network_objective: Objective, three_sets) -> None:
    removed, retained, test = three_sets
    nothing = test.select(torch.tensor([], dtype=torch.int64))
    found = measure(network_objective, network_objective.theta(), removed, retained, nothing)
    assert set(found.metrics()) == {
        "forget_loss", "forget_accuracy", "retained_loss", "retained_accuracy", "retained_gradient_norm",
    }  # fmt: skip


def test_losses_that_are_not_numbers_show_and_are_not_compared(network_objective: Objective, three_sets) -> None:
    removed, retained, test = three_sets
    broken = Samples(retained.inputs.clone(), retained.labels)
    broken.inputs[2] = math.nan
    found = measure(network_objective, network_objective.theta(), removed, broken, test)
    assert math.isnan(found.retained.loss)
    assert found.retained_membership is None
    assert found.forget_membership is not None


def test_squared_errors_have_no_accuracy(regression_objective: Objective, targets: Samples) -> None:
    sets = [targets.select(torch.arange(*span)) for span in ((0, 4), (4, 30), (30, 40))]
    found = measure(regression_objective, regression_objective.theta(), *sets).metrics()
    assert "test_loss" in found
    assert not any(name.endswith("accuracy") for name in found)


def test_nothing_retained_is_refused(network_objective: Objective, three_sets) -> None:
    removed, _, test = three_sets
    nothing = test.select(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="empty"):
        measure(network_objective, network_objective.theta(), removed, nothing, test)
