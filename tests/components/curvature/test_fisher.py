from __future__ import annotations

import pytest
import torch
from oracles import dense_gauss_newton, sample_gradients

from oubli.components.curvature.draws import normals, sample_keys, uniforms
from oubli.components.curvature.fisher import EmpiricalFisher, SampledFisher
from oubli.components.curvature.output_roots import exact_roots, sampled_root
from oubli.components.errors import ConfigurationError
from oubli.components.model.losses import Loss, cross_entropy, loss_function
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.solvers import DenseSystem, ProductSystem, WoodburySystem


def restricted(objective, block=None):
    return Restriction(objective, objective.theta(), block)


@pytest.mark.parametrize("names", [("network", "images"), ("token", "tokens"), ("recurrent", "sequences")])
@pytest.mark.parametrize("budget_bytes", [1, 2**28])
def test_all_forms_of_the_empirical_fisher_match_the_oracle(request, names, budget_bytes):
    objective, samples = request.getfixturevalue(f"{names[0]}_objective"), request.getfixturevalue(names[1])
    rows = sample_gradients(objective, samples)
    expected = rows.T @ rows / len(rows)
    found = EmpiricalFisher(restricted(objective), samples, budget_bytes)
    assert found.rank_bound() == len(samples)
    torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found.factor() * len(rows) ** 0.5, rows, rtol=1e-10, atol=1e-13)
    vector = torch.linspace(-1, 2, found.size, dtype=torch.float64)
    torch.testing.assert_close(found.matvec(vector), expected @ vector, rtol=1e-10, atol=1e-13)
    assert found.mean_diagonal() == pytest.approx(float(expected.diagonal().mean()))


def test_a_block_gives_the_sub_matrix(network_objective, images):
    rows = sample_gradients(network_objective, images)
    block = torch.tensor([0, 5, 31, 40, rows.shape[1] - 1])
    found = EmpiricalFisher(restricted(network_objective, block), images)
    torch.testing.assert_close(found.dense(), (rows.T @ rows / len(rows))[block][:, block], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kind", [EmpiricalFisher, SampledFisher])
def test_all_ways_of_solving_agree(network_objective, images, kind):
    found = kind(restricted(network_objective), images)
    b = torch.linspace(-1, 2, found.size, dtype=torch.float64)
    system = found.system()
    assert isinstance(system, WoodburySystem)  # 20 rows, 75 parameters
    expected = DenseSystem(found.dense()).solve(b, 0.1).x
    torch.testing.assert_close(system.solve(b, 0.1).x, expected, rtol=1e-8, atol=1e-9)
    iterated = ProductSystem(found.matvec, found.mean_diagonal).solve(b, 0.1)
    torch.testing.assert_close(iterated.x, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("loss", list(Loss))
def test_the_sampled_fisher_is_the_gauss_newton_matrix_in_the_mean(network, images, loss):
    labels = {
        Loss.CROSS_ENTROPY: torch.arange(4) % 3,
        Loss.BCE_WITH_LOGITS: torch.arange(12).reshape(4, 3) % 2,
        Loss.MSE: torch.zeros(4, 3),
    }[loss]
    samples = Samples(images.inputs[:4], labels)
    objective = Objective(network, loss_function(loss), 0.0)
    expected = dense_gauss_newton(objective, samples)

    def error(seeds):
        return float(
            (
                sum(SampledFisher(restricted(objective), samples, seed=one).dense() for one in seeds) / len(seeds)
                - expected
            ).norm()
            / expected.norm()
        )

    # It falls with the root of the number of draws: 1 of 400 leaves a twentieth of the error of one draw.
    assert error(range(400)) < 0.1
    assert error(range(1)) > 0.15


@pytest.mark.parametrize("loss", [*Loss, None])
@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_roots_make_the_hessian_in_the_outputs(loss, shape):
    known = cross_entropy if loss is None else loss_function(loss)
    # The same function under another name is a loss from elsewhere.
    function = (lambda outputs, labels: known(outputs, labels)) if loss is None else known
    objective = Objective(torch.nn.Linear(2, 3), function, 0.0)
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    if loss in (Loss.CROSS_ENTROPY, None):
        labels = torch.randint(0, 3, (5, *shape[1:]), generator=generator)
    else:
        labels = torch.randint(0, 2, (5, *shape), generator=generator).double()
    roots = torch.stack([one.flatten(1) for one in exact_roots(objective, outputs, labels)])
    keys = torch.arange(20_000)[:, None]
    for at in range(5):
        expected = torch.autograd.functional.hessian(
            lambda flat, at=at: function(flat.reshape(1, *shape), labels[at : at + 1])[0], outputs[at].reshape(-1)
        )
        torch.testing.assert_close(roots[:, at].T @ roots[:, at], expected, rtol=1e-10, atol=1e-12)
        if loss is not None:
            many = outputs[at].expand(len(keys), *shape), labels[at].expand(len(keys), *labels.shape[1:])
            drawn = sampled_root(objective, *many, sample_keys(keys, 1)).flatten(1)
            assert float((drawn.T @ drawn / len(keys) - expected).norm() / expected.norm()) < 0.05


def test_ignored_labels_have_no_curvature():
    objective = Objective(torch.nn.Linear(2, 3), cross_entropy, 0.0)
    outputs = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[0, -100], [-100, 1]])
    for root in exact_roots(objective, outputs, labels):
        assert not root[0, :, 1].any()
        assert not root[1, :, 0].any()
    drawn = sampled_root(objective, outputs, labels, torch.tensor([1, 2]))
    assert drawn[0, :, 0].any()
    assert not drawn[0, :, 1].any()


def test_a_loss_from_elsewhere_draws_no_labels(network, images):
    objective = Objective(network, lambda outputs, labels: outputs.square().sum(1), 0.0)
    with pytest.raises(ConfigurationError, match="cannot be drawn"):
        SampledFisher(restricted(objective), images).dense()


def test_the_same_seed_gives_the_same_bits_whatever_the_chunk(network_objective, images):
    factor = SampledFisher(restricted(network_objective), images, seed=5).factor()
    assert torch.equal(factor, SampledFisher(restricted(network_objective), images, seed=5).factor())
    one_by_one = SampledFisher(restricted(network_objective), images, budget_bytes=1, seed=5).factor()
    torch.testing.assert_close(factor, one_by_one, rtol=1e-12, atol=1e-14)
    other = SampledFisher(restricted(network_objective), images, seed=6).factor()
    assert float((factor - other).norm()) > 0.1 * float(factor.norm())


def test_keys_belong_to_samples():
    inputs = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0))
    keys = sample_keys(inputs, 3)
    assert len(keys.unique()) == 50
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sample_keys(inputs[order], 3), keys[order])
    assert torch.equal(sample_keys(inputs.double(), 3), keys)
    assert not (sample_keys(inputs, 4) == keys).any()
    whole = torch.arange(12).reshape(3, 4)
    assert len(sample_keys(torch.cat([whole, whole.flip(1)]), 0).unique()) == 6


def test_draws_are_spread_as_they_should_be():
    keys = sample_keys(torch.arange(50_000)[:, None], 0)
    even = uniforms(keys, 2)
    assert float(even.min()) > 0
    assert float(even.max()) < 1
    counts = torch.histc(even[:, 0], 20, 0, 1)
    # 2,500 in each of 20 bins, with a standard deviation of 49.
    assert float((counts - 2500).abs().max()) < 5 * 49
    assert abs(float(torch.corrcoef(even.T)[0, 1])) < 0.02
    normal = normals(keys, 1)
    assert abs(float(normal.mean())) < 0.02
    assert float(normal.var()) == pytest.approx(1, abs=0.03)
    assert float((normal.abs() < 1.96).double().mean()) == pytest.approx(0.95, abs=0.005)
