from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from oubli.components.curvature import factors, grams
from oubli.components.curvature.factors import (
    CurvatureFactor,
    DenseFactor,
    FactorForm,
    KroneckerFactor,
    restore_factor,
    take_factor,
)
from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.errors import ConfigurationError, IndefiniteCurvature
from oubli.components.model.losses import cross_entropy, mse
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded

L2 = 1e-2


def head(loss, *, bias: bool = True) -> Objective:
    return Objective(build_seeded(lambda: nn.Linear(4, 3, bias=bias), 1), loss, L2)


def samples(loss, n: int = 40) -> Samples:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(n, 4, generator=generator)
    if loss is mse:
        return Samples(inputs, torch.randn(n, 3, generator=generator))
    return Samples(inputs, torch.randint(0, 3, (n,), generator=generator))


def hessian(objective: Objective, source: Samples) -> torch.Tensor:
    """The slow oracle: by Jacobians, in float64."""
    curvature = GaussNewton(Restriction(objective, objective.theta(), None), source)
    columns = [curvature.matvec(column) for column in torch.eye(objective.space.d, dtype=torch.float64)]
    return torch.stack(columns, 1) + L2 * torch.eye(objective.space.d, dtype=torch.float64)


def inverse(factor: CurvatureFactor) -> torch.Tensor:
    return torch.stack([factor.solve(column) for column in torch.eye(factor.d, dtype=torch.float64)], 1)


def check_inverse(factor: CurvatureFactor, objective: Objective, source: Samples) -> None:
    one = torch.eye(factor.d, dtype=torch.float64)
    torch.testing.assert_close(inverse(factor) @ hessian(objective, source), one, atol=1e-4, rtol=0)


def taken(objective: Objective, source: Samples) -> CurvatureFactor:
    factor = take_factor(objective, objective.theta(), source)
    assert factor is not None
    return factor


@pytest.fixture
def no_dense(monkeypatch):
    monkeypatch.setattr(factors, "DENSE_PARAMETERS", 0)
    # Every sample is taken.
    monkeypatch.setattr(grams, "ROWS", 10_000)


@pytest.fixture
def no_outputs(monkeypatch, no_dense):
    monkeypatch.setattr(factors, "OUTPUT_ELEMENTS", 0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", [cross_entropy, mse])
def test_a_dense_factor_inverts_the_hessian(loss, bias):
    objective, source = head(loss, bias=bias), samples(loss)
    factor = taken(objective, source)
    assert factor.form is FactorForm.DENSE
    check_inverse(factor, objective, source)


@pytest.mark.parametrize("bias", [True, False])
def test_each_output_has_the_inverse_of_its_own_block(no_dense, bias):
    """Of a squared error, whose outputs are not coupled, that is the whole inverse."""
    objective, source = head(mse, bias=bias), samples(mse)
    factor = taken(objective, source)
    assert factor.form is FactorForm.OUTPUTS
    check_inverse(factor, objective, source)


def test_shifts_of_all_outputs_have_the_curvature_of_l2_alone(no_dense):
    objective, source = head(cross_entropy), samples(cross_entropy)
    shift = torch.cat([torch.tensor([1.0, -2.0, 0.5, 3.0]).repeat(3), torch.full((3,), 4.0)]).double()
    torch.testing.assert_close(taken(objective, source).solve(shift), shift / L2, rtol=1e-5, atol=0)


def test_a_kronecker_factor_inverts_where_all_samples_curve_alike(no_outputs):
    """So do those of a squared error: the mean of a a^T is then exact."""
    objective, source = head(mse), samples(mse)
    factor = taken(objective, source)
    assert factor.form is FactorForm.KRONECKER
    check_inverse(factor, objective, source)


@pytest.mark.parametrize("form", [FactorForm.OUTPUTS, FactorForm.KRONECKER])
def test_structure_is_nearer_to_the_hessian_than_none(monkeypatch, form):
    monkeypatch.setattr(factors, "DENSE_PARAMETERS", 0)
    monkeypatch.setattr(factors, "OUTPUT_ELEMENTS", 2**28 if form is FactorForm.OUTPUTS else 0)
    objective = head(cross_entropy)
    source = Samples(
        samples(cross_entropy).inputs * torch.tensor([1.0, 3.0, 10.0, 30.0]), samples(cross_entropy).labels
    )
    factor = taken(objective, source)
    assert factor.form is form
    exact = hessian(objective, source)
    values = torch.linalg.eigvals(inverse(factor) @ exact).real
    assert float(values.min()) > 0
    plain = torch.linalg.eigvalsh(exact)
    assert float(values.max() / values.min()) < 0.1 * float(plain.max() / plain.min())


def test_drawn_samples_give_about_the_blocks_of_all(monkeypatch):
    objective, source = head(cross_entropy), samples(cross_entropy, 4000)
    linear = factors.find_linear_head(objective, source.inputs[:1].double())
    assert linear is not None
    exact = grams.dense_gram(objective, objective.theta(), source, linear)
    monkeypatch.setattr(grams, "ROWS", 50)
    drawn = grams.output_grams(objective, objective.theta(), source, linear)
    order = torch.argsort(linear.order(torch.device("cpu")))
    blocks = torch.stack([exact[order[:, None], order][at : at + 5, at : at + 5] for at in (0, 5, 10)])
    assert not torch.equal(drawn, blocks)
    assert float((drawn - blocks).norm() / blocks.norm()) < 0.2
    monkeypatch.setattr(grams, "ROWS", 10_000)
    torch.testing.assert_close(grams.output_grams(objective, objective.theta(), source, linear), blocks)


@pytest.mark.parametrize("limits", [(20_000, 2**28), (0, 2**28), (0, 0)])
def test_what_is_stored_comes_back(monkeypatch, limits):
    monkeypatch.setattr(factors, "DENSE_PARAMETERS", limits[0])
    monkeypatch.setattr(factors, "OUTPUT_ELEMENTS", limits[1])
    objective = head(cross_entropy)
    factor = taken(objective, samples(cross_entropy))
    back = restore_factor(factor.tensors(), json.loads(json.dumps(factor.facts())))
    vector = torch.arange(1.0, 16.0, dtype=torch.float64)
    assert type(back) is type(factor)
    assert torch.equal(back.solve(vector), factor.solve(vector))


def test_a_tiny_vector_is_solved_like_a_large_one():
    factor = taken(head(cross_entropy), samples(cross_entropy))
    vector = torch.arange(1.0, 16.0, dtype=torch.float64)
    torch.testing.assert_close(factor.solve(vector * 2.0**-200), factor.solve(vector) * 2.0**-200, rtol=1e-6, atol=0)


def test_other_tensors_are_no_factor():
    with pytest.raises(ConfigurationError, match="make no curvature factor"):
        restore_factor({}, {"form": "dense_factor"})


def test_a_singular_matrix_takes_more_than_l2():
    """1e8 swallows 1e-4 in float32."""
    matrix = 1e8 * torch.ones(3, 3)
    assert bool(torch.isfinite(DenseFactor.of(matrix, 4.0).upper).all())


def test_an_indefinite_matrix_has_no_factor():
    with pytest.raises(IndefiniteCurvature, match="not positive definite"):
        DenseFactor.of(-10 * torch.eye(3), 1e-3)


def test_rounding_below_zero_does_no_harm():
    outputs = torch.diag(torch.tensor([-1e-9, 1.0]))
    factor = KroneckerFactor.of(outputs, torch.eye(2), L2, bias=False)
    torch.testing.assert_close(factor.solve(torch.ones(4)), torch.tensor([1 / L2, 1 / L2, 1 / 1.01, 1 / 1.01]))


def test_a_network_too_large_for_a_dense_factor_has_none(no_dense):
    objective = Objective(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), cross_entropy, L2)
    assert take_factor(objective, objective.theta(), samples(cross_entropy)) is None
