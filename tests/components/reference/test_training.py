from __future__ import annotations

import pytest
import torch
from torch import nn

from oubli.components.errors import ConfigurationError, NumericalError
from oubli.components.measures.evaluation import evaluate, retained_gradient_norm
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.reference.models import logistic_regression
from oubli.components.reference.training import fit_convex, fit_minibatch, seeded

L2 = 1e-2


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def dropout_network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def test_building_is_a_function_of_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (build_seeded(dropout_network, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_seeded_restores_the_state_after_an_error():
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="cannot be multiplied"), seeded(3):
        torch.rand(1, 2) @ torch.rand(3, 1)
    assert torch.equal(torch.get_rng_state(), state)


def test_convex_training_reaches_its_tolerance_in_place(classes):
    module = logistic_regression(4, 3).double()
    seen: list[float] = []
    trained = fit_convex(module, classes, loss=cross_entropy, l2=L2, seed=0, on_progress=seen.append)
    assert trained is module
    assert not module.training
    objective = Objective(module, cross_entropy, L2)
    assert retained_gradient_norm(objective, objective.theta(), classes) <= 1e-9
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_the_convex_optimum_does_not_depend_on_the_start(classes):
    from_zero = fit_convex(logistic_regression(4, 3).double(), classes, loss=cross_entropy, l2=L2)
    from_noise = fit_convex(build_seeded(lambda: nn.Linear(4, 3).double(), 5), classes, loss=cross_entropy, l2=L2)
    torch.testing.assert_close(weights(from_zero), weights(from_noise), rtol=0, atol=1e-6)


def test_a_trained_model_is_left_where_it_is(classes):
    module = fit_convex(logistic_regression(4, 3).double(), classes, loss=cross_entropy, l2=L2)
    before = weights(module).clone()
    assert torch.equal(weights(fit_convex(module, classes, loss=cross_entropy, l2=L2)), before)


def test_a_float32_module_stays_float32(classes):
    module = fit_convex(logistic_regression(4, 3), classes, loss=cross_entropy, l2=L2)
    assert module[1].weight.dtype == torch.float32
    exact = fit_convex(logistic_regression(4, 3).double(), classes, loss=cross_entropy, l2=L2)
    torch.testing.assert_close(weights(module), weights(exact).float())


def test_what_does_not_converge_is_an_error(classes):
    # Without a penalty, separable classes have no minimiser at a finite distance.
    separable = Samples(classes.inputs, (classes.inputs[:, 0] > 0).long())
    module = logistic_regression(4, 2).double()
    with pytest.raises(NumericalError):
        fit_convex(module, separable, loss=cross_entropy, l2=0.0, tolerance=1e-300, max_iterations=20)


def test_minibatch_training_learns_and_repeats(classes):
    learnable = Samples(classes.inputs, (classes.inputs[:, 0] > 0).long() + (classes.inputs[:, 1] > 0).long())
    state = torch.get_rng_state()
    runs = []
    for seed in (1, 1, 2):
        module = build_seeded(dropout_network, 0)
        seen: list[float] = []
        trained = fit_minibatch(
            module,
            learnable,
            loss=cross_entropy,
            l2=1e-4,
            seed=seed,
            epochs=100,
            batch_size=16,
            learning_rate=1e-2,
            on_progress=seen.append,
        )
        assert trained is module
        assert not module.training
        assert len(seen) == 100
        assert seen[-1] == 1.0
        runs.append(weights(module))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), state)
    objective = Objective(module, cross_entropy, 1e-4)
    found = evaluate(objective, objective.theta(), learnable)
    assert found.accuracy is not None
    assert found.accuracy > 0.9


def test_minibatch_training_descends_the_penalised_objective(classes):
    """With a heavy penalty the weights shrink towards F's own minimiser, not that of the loss alone."""
    module = fit_minibatch(
        build_seeded(lambda: nn.Linear(4, 3).double(), 0),
        classes,
        loss=cross_entropy,
        l2=1.0,
        seed=0,
        epochs=300,
        learning_rate=3e-2,
    )
    exact = fit_convex(logistic_regression(4, 3).double(), classes, loss=cross_entropy, l2=1.0)
    torch.testing.assert_close(weights(module), weights(exact), rtol=0, atol=5e-3)


def test_divergence_is_an_error(classes):
    huge = Samples(classes.inputs.float() * float("inf"), classes.labels)
    with pytest.raises(NumericalError, match="diverged in epoch 1"):
        fit_minibatch(nn.Linear(4, 3), huge, loss=cross_entropy, l2=0.0, seed=0, epochs=1)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_options_must_be_positive(classes, options):
    with pytest.raises(ConfigurationError, match="must be positive"):
        fit_minibatch(nn.Linear(4, 3), classes, loss=cross_entropy, l2=0.0, seed=0, **options)
