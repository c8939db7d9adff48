from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import hessian

from oubli.components.errors import ConfigurationError
from oubli.components.gate.capacity import (
    Assumptions,
    DeletionCapacity,
    PrivacyTarget,
    measured_gamma,
    noise_scale,
    noisy,
    relative_noise,
)
from oubli.components.gate.smoothness import Smoothness, softmax_regression_smoothness
from oubli.components.model.gradients import objective_gradient
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective

KNOWN = Assumptions(convex=True, smoothness_proven=True, at_minimum=True, all_parameters=True, exact_curvature=True)
ACCOUNT = DeletionCapacity(PrivacyTarget(0.5, 1e-4), Smoothness(3.0, 2.0), 0.1, samples=500, max_noise=1.0)


def test_the_formulas():
    m = 7
    gamma = 2 * 2.0 * 3.0**2 * m**2 / (0.1**3 * 500**2)
    sigma = gamma / 0.5 * math.sqrt(2 * math.log(1.25 / 1e-4))
    assert ACCOUNT.gamma(m) == pytest.approx(gamma)
    assert ACCOUNT.sigma(m) == pytest.approx(sigma)
    assert noise_scale(gamma, ACCOUNT.target) == pytest.approx(sigma)


@settings(deadline=None, max_examples=60)
@given(
    epsilon=st.floats(1e-3, 10),
    delta=st.floats(1e-9, 0.9),
    lipschitz=st.floats(0, 100),
    hessian_lipschitz=st.floats(0, 100),
    l2=st.floats(0, 10),
    samples=st.integers(1, 40),
    max_noise=st.floats(0, 1e6),
)
def test_the_capacity_is_the_largest_number_within_the_noise(
    epsilon, delta, lipschitz, hessian_lipschitz, l2, samples, max_noise
):
    account = DeletionCapacity(
        PrivacyTarget(epsilon, delta), Smoothness(lipschitz, hessian_lipschitz), l2, samples, max_noise
    )
    expected = max(m for m in range(samples) if account.sigma(m) <= max_noise)
    assert account.capacity == expected
    for before in range(samples):
        assert account.remaining(before) == max(0, expected - before)
        assert account.spent(before) == (before > expected)


def test_nothing_removed_needs_no_noise():
    assert ACCOUNT.gamma(0) == ACCOUNT.sigma(0) == 0
    without = replace(ACCOUNT, strong_convexity=0.0)
    assert without.sigma(0) == 0
    assert without.gamma(1) == math.inf
    assert without.capacity == 0


def test_a_quadratic_loss_needs_no_noise_at_all():
    account = replace(ACCOUNT, smoothness=Smoothness(3.0, 0.0), max_noise=0.0)
    assert account.capacity == 499


def test_a_tiny_l2_does_not_underflow():
    assert replace(ACCOUNT, strong_convexity=1e-120).gamma(1) == math.inf
    assert math.isfinite(replace(ACCOUNT, strong_convexity=1e-90).gamma(1))


def test_a_guarantee_needs_every_condition_and_the_noise():
    sigma = ACCOUNT.sigma(2)
    held = ACCOUNT.statement(2, KNOWN, noise=sigma)
    assert held.guarantee
    assert "is a guarantee" in held.sentence
    short = ACCOUNT.statement(2, KNOWN, noise=0.99 * sigma)
    assert not short.guarantee
    assert f"where {sigma:.3g} is needed" in short.sentence
    for name in ("convex", "smoothness_proven", "at_minimum", "all_parameters", "exact_curvature"):
        broken = ACCOUNT.statement(2, replace(KNOWN, **{name: False}), noise=sigma)
        assert not broken.guarantee
        assert len(broken.unmet) == 1
        assert broken.unmet[0] in broken.sentence
        assert "stated target, not a guarantee" in broken.sentence
    loose = replace(ACCOUNT, target=PrivacyTarget(2.0, 1e-4))
    assert "above 1" in loose.statement(2, KNOWN, noise=sigma).sentence
    flat = replace(ACCOUNT, strong_convexity=0.0)
    assert "l2 is 0" in flat.statement(2, KNOWN, noise=sigma).sentence


def test_a_statement_says_when_the_capacity_is_spent():
    last = ACCOUNT.capacity
    assert not ACCOUNT.statement(last, KNOWN).spent
    assert ACCOUNT.statement(last + 1, KNOWN).spent
    assert ACCOUNT.statement(last + 1, KNOWN).capacity == last


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 0.1), (-1, 0.1), (math.inf, 0.1), (1, 0), (1, 1), (1, math.nan)])
def test_a_target_must_be_in_range(epsilon, delta):
    with pytest.raises(ConfigurationError, match=r"epsilon|delta"):
        PrivacyTarget(epsilon, delta)


@pytest.mark.parametrize(
    "change", [{"samples": 0}, {"strong_convexity": -1.0}, {"max_noise": math.nan}, {"max_noise": math.inf}]
)
def test_an_account_must_be_usable(change):
    with pytest.raises(ConfigurationError, match=next(iter(change))):
        replace(ACCOUNT, **change)


@pytest.mark.parametrize("removed", [-1, 500])
def test_what_cannot_have_been_removed_is_refused(removed):
    for ask in (ACCOUNT.gamma, ACCOUNT.sigma, ACCOUNT.remaining, ACCOUNT.spent):
        with pytest.raises(ConfigurationError, match="of 500"):
            ask(removed)


def test_noise_has_the_asked_spread_and_comes_from_the_generator():
    theta = torch.linspace(0, 1, 20_000)
    found = noisy(theta, 0.25, torch.Generator().manual_seed(3))
    assert found.dtype is theta.dtype
    assert float((found - theta).std()) == pytest.approx(0.25, rel=0.02)
    assert float((found - theta).mean()) == pytest.approx(0, abs=0.01)
    assert torch.equal(found, noisy(theta, 0.25, torch.Generator().manual_seed(3)))
    same = noisy(theta, 0.0, torch.Generator())
    assert torch.equal(same, theta)
    assert same is not theta
    with pytest.raises(ConfigurationError, match="sigma"):
        noisy(theta, math.inf, torch.Generator())


def test_relative_noise_has_its_share_of_the_weights_norm():
    theta = torch.linspace(-3, 4, 50_000)
    noise = noisy(theta, relative_noise(0.01, theta), torch.Generator().manual_seed(0)) - theta
    assert float(noise.norm() / theta.norm()) == pytest.approx(0.01, rel=0.02)


def test_the_measured_bound_holds_around_the_minimum(linear_objective, classes):
    """Newton's method finds the minimiser; anywhere else is no further from it than the gradient says."""
    theta = linear_objective.theta()

    def value(weights):
        return linear_objective.losses(weights, classes).mean() + linear_objective.penalty(weights)

    minimum = theta
    for _ in range(30):
        gradient = objective_gradient(linear_objective, minimum, classes)
        minimum = minimum - torch.linalg.solve(hessian(value, minimum), gradient)
    assert float(objective_gradient(linear_objective, minimum, classes).norm()) < 1e-12
    for seed in range(20):
        away = minimum + torch.randn(15, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        gradient = float(objective_gradient(linear_objective, away, classes).norm())
        assert float((away - minimum).norm()) <= measured_gamma(gradient, linear_objective.l2)


def test_the_measured_bound_without_l2():
    assert measured_gamma(0.0, 0.0) == 0
    assert measured_gamma(1.0, 0.0) == math.inf


def test_the_bound_of_the_theorem_covers_a_removal(classes):
    """One Newton step on a trained softmax regression ends within gamma of the retrained minimiser."""
    objective = Objective(torch.nn.Linear(4, 3), cross_entropy, 0.5)
    retained = classes.select(torch.arange(5, 40))

    def minimise(samples, start):
        def value(weights):
            return objective.losses(weights, samples).mean() + objective.penalty(weights)

        for _ in range(30):
            gradient = objective_gradient(objective, start, samples)
            start = start - torch.linalg.solve(hessian(value, start), gradient)
        return start, value

    original, _ = minimise(classes, objective.theta())
    retrained, value = minimise(retained, original)
    step = torch.linalg.solve(hessian(value, original), objective_gradient(objective, original, retained))
    distance = float((original - step - retrained).norm())
    smoothness = softmax_regression_smoothness(float(classes.inputs.norm(dim=1).max()), l2=0.5, classes=3)
    account = DeletionCapacity(PrivacyTarget(1.0, 1e-5), smoothness, 0.5, samples=40, max_noise=1.0)
    assert 0 < distance <= account.gamma(5)
