from __future__ import annotations

import pytest
import torch
from oracles import dense_hessian

from oubli.components.curvature.kinds import CurvatureKind, curvature_builder
from oubli.components.curvature.secant import FiniteDifference, Secant
from oubli.components.errors import ConfigurationError, IndefiniteCurvature, NonFiniteInput
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.restriction import Restriction
from oubli.components.solvers import DenseSystem


@pytest.mark.slow
def test_it_maps_the_step_to_the_change_of_the_gradient(regression_objective, targets):
    theta = regression_objective.theta()
    step = torch.linspace(-0.1, 0.2, len(theta), dtype=torch.float64)
    before = gradient_sum(regression_objective, theta - step, targets) / len(targets)
    change = gradient_sum(regression_objective, theta, targets) / len(targets) - before
    found = FiniteDifference(Restriction(regression_objective, theta, None), Secant(step, change))
    torch.testing.assert_close(found.matvec(step), change, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.dense(), found.dense().T)
    # The loss is quadratic: the change is the Hessian's product with the step.
    expected = dense_hessian(regression_objective, targets) @ step
    torch.testing.assert_close(change, expected, rtol=1e-9, atol=1e-12)


def test_a_block_is_the_sub_matrix_and_is_solved(regression_objective, targets):
    theta = regression_objective.theta()
    step, change = torch.ones_like(theta), torch.linspace(-1, 2, len(theta), dtype=torch.float64)
    block = torch.tensor([1, 4, 9])
    whole = FiniteDifference(Restriction(regression_objective, theta, None), Secant(step, change)).dense()
    builder = curvature_builder(CurvatureKind.FINITE_DIFFERENCE, secant=Secant(step, change))
    part = builder(Restriction(regression_objective, theta, block), targets)
    torch.testing.assert_close(part.dense(), whole[block][:, block])
    b = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(part.matvec(b), part.dense() @ b)
    torch.testing.assert_close(part.system().solve(b, 0.3).x, DenseSystem(part.dense()).solve(b, 0.3).x)
    with pytest.raises(IndefiniteCurvature, match="eigenvalue 0"):
        part.system().solve(b, 0.0)


def test_what_is_no_secant_is_refused(regression_objective):
    restriction = Restriction(regression_objective, regression_objective.theta(), None)
    ones = torch.ones(restriction.size, dtype=torch.float64)
    with pytest.raises(IndefiniteCurvature, match=r"negative curvature: change \. step is -10"):
        FiniteDifference(restriction, Secant(ones, -ones))
    with pytest.raises(ConfigurationError, match="has 3 parameters, the objective 10"):
        FiniteDifference(restriction, Secant(ones[:3], ones[:3]))
    with pytest.raises(ConfigurationError, match="two flat vectors"):
        Secant(ones, ones[:3])
    with pytest.raises(NonFiniteInput, match="NaN"):
        Secant(ones, ones * float("nan"))
    with pytest.raises(ConfigurationError, match="needs a secant"):
        curvature_builder(CurvatureKind.FINITE_DIFFERENCE)
