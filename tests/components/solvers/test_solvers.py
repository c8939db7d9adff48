from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from oubli.components.errors import IndefiniteCurvature, NonFiniteInput, NumericalError
from oubli.components.solvers import (
    DIRECT_BYTES,
    DIRECT_FLOPS,
    DenseSystem,
    ProductSystem,
    SolverName,
    WoodburySystem,
    choose_solver,
    full_precision,
    prepare_system,
    tolerance_of,
)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def products(matrix: Tensor) -> ProductSystem:
    return ProductSystem(lambda vector: matrix @ vector, lambda: float(matrix.diagonal().mean()))


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 30), rank=st.integers(1, 30), seed=st.integers(0, 100), shift=st.floats(1e-3, 10))
def test_all_ways_give_the_solution(size, rank, seed, shift):
    factor, b = normal(rank, size, seed=seed), normal(size, seed=seed + 1)
    matrix = factor.T @ factor
    expected = torch.linalg.solve(matrix + shift * torch.eye(size, dtype=b.dtype), b)
    for system in (DenseSystem(matrix), WoodburySystem(factor), products(matrix)):
        found = system.solve(b, shift)
        torch.testing.assert_close(found.x, expected, rtol=1e-5, atol=1e-6 * float(expected.norm()))
        assert found.residual < 1e-8
        assert system.mean_diagonal() == pytest.approx(float(matrix.diagonal().mean()))


def test_each_says_what_it_did():
    factor, b = normal(3, 8, seed=0), normal(8, seed=1)
    assert DenseSystem(factor.T @ factor).solve(b, 1.0).solver is SolverName.CHOLESKY
    assert WoodburySystem(factor).solve(b, 1.0).solver is SolverName.WOODBURY
    found = products(factor.T @ factor).solve(b, 1.0)
    assert found.solver is SolverName.CONJUGATE_GRADIENTS
    # Three eigenvalues beside the shift: four distinct ones, so at most four iterations.
    assert 1 <= found.iterations <= 4


def test_a_zero_right_hand_side_has_the_zero_solution():
    factor = normal(3, 8, seed=0)
    zero = torch.zeros(8, dtype=torch.float64)
    for system in (DenseSystem(factor.T @ factor), WoodburySystem(factor), products(factor.T @ factor)):
        found = system.solve(zero, 0.1)
        assert torch.equal(found.x, zero)
        assert found.residual == 0


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_indefinite_curvature_is_named_and_never_solved(shift):
    matrix = torch.diag(torch.tensor([1.0, 2.0, -0.75], dtype=torch.float64))
    b = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    with pytest.raises(IndefiniteCurvature, match=rf"eigenvalue -0\.75, with l2 and damping adding {shift:.3g}"):
        DenseSystem(matrix).solve(b, shift)
    with pytest.raises(IndefiniteCurvature, match=r"met in iteration 1 -0\.75.*damping.*above 0\.75"):
        products(matrix).solve(b, shift)


def test_enough_damping_makes_indefinite_curvature_solvable():
    matrix = torch.diag(torch.tensor([1.0, -0.75], dtype=torch.float64))
    b = torch.ones(2, dtype=torch.float64)
    for system in (DenseSystem(matrix), products(matrix)):
        torch.testing.assert_close(system.solve(b, 1.0).x, torch.tensor([0.5, 4.0], dtype=torch.float64))


def test_a_singular_matrix_is_refused():
    factor, b = normal(2, 5, seed=0), normal(5, seed=1)
    with pytest.raises(IndefiniteCurvature, match="eigenvalue 0"):
        WoodburySystem(factor).solve(b, 0.0)


def test_conjugate_gradients_that_do_not_arrive_are_an_error():
    # Far more iterations than the limit: the spectrum spans 14 decades.
    matrix = torch.diag(torch.logspace(-14, 0, 1500, dtype=torch.float64))
    with pytest.raises(NumericalError, match=r"relative residual of .* in 1000 iterations"):
        products(matrix).solve(torch.ones(1500, dtype=torch.float64), 0.0)


def conditioned(decades: float) -> Tensor:
    """(30, 30) float32, eigenvalues from 10^-decades to 1 along no axis."""
    basis = torch.linalg.qr(normal(30, 30, seed=0))[0]
    matrix = basis * torch.logspace(-decades, 0, 30, dtype=torch.float64) @ basis.T
    return ((matrix + matrix.T) / 2).float()


@pytest.mark.parametrize("way", [DenseSystem, products])
def test_a_solution_that_rounding_has_spoiled_is_refused(way):
    b = normal(30, seed=1).float()
    assert way(conditioned(3)).solve(b, 0.0).residual <= tolerance_of(torch.float32)
    with pytest.raises(
        NumericalError, match=r"left a relative residual of 0\.\d+; 0\.0014 .*adding 0\. Raise.*float64"
    ):
        way(conditioned(6)).solve(b, 0.0)


def test_a_woodbury_solution_is_refined_or_refused():
    factor = normal(5, 30, seed=3)
    # Where the factor reaches, b - F^T(...) cancels: the first solve leaves 1e-6 here.
    b = factor.T @ normal(5, seed=1)
    refined = WoodburySystem(factor).solve(b, 1e-9)
    assert refined.iterations == 2
    product = factor.T @ (factor @ refined.x) + 1e-9 * refined.x
    assert float((product - b).norm() / b.norm()) == pytest.approx(refined.residual)
    assert refined.residual <= tolerance_of(torch.float64)
    assert WoodburySystem(factor).solve(b, 1.0).iterations == 1
    with pytest.raises(NumericalError, match=r"woodbury left a relative residual"):
        WoodburySystem(factor.float()).solve(b.float(), 1e-5)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_curvature_that_is_not_finite_is_named(broken):
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[1, 1] = broken
    b = torch.ones(3, dtype=torch.float64)
    for way in (DenseSystem, WoodburySystem, products):
        with pytest.raises(NonFiniteInput, match="curvature is NaN or infinite"):
            way(matrix).solve(b, 1.0)


def test_the_lowest_eigenvalue_is_computed_once_a_system(monkeypatch):
    calls = []
    eigvalsh = torch.linalg.eigvalsh
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda matrix: calls.append(1) or eigvalsh(matrix))
    system = DenseSystem(torch.diag(torch.tensor([1.0, -0.75], dtype=torch.float64)))
    for shift in (0.0, 0.25, 0.5):
        with pytest.raises(IndefiniteCurvature, match=r"eigenvalue -0\.75"):
            system.solve(torch.ones(2, dtype=torch.float64), shift)
    assert len(calls) == 1


def test_one_gram_matrix_serves_all_shifts():
    system = WoodburySystem(normal(3, 8, seed=0))
    gram = system.gram
    before = gram.clone()
    for shift in (0.1, 1.0):
        system.solve(normal(8, seed=1), shift)
    assert system.gram is gram
    assert torch.equal(gram, before)


def test_one_estimate_of_the_diagonal_serves_all_dampings():
    calls = []
    system = ProductSystem(lambda vector: vector, lambda: calls.append(1) or 2.0)
    assert system.mean_diagonal() == system.mean_diagonal() == 2.0
    assert len(calls) == 1


def test_full_precision_is_set_inside_and_restored():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@settings(deadline=None)
@given(size=st.integers(1, 10**8), rank=st.integers(1, 10**10), itemsize=st.sampled_from([4, 8]))
def test_direct_ways_are_chosen_within_their_limits_only(size, rank, itemsize):
    solver = choose_solver(size, rank, itemsize)
    if solver is SolverName.WOODBURY:
        assert rank < size
        assert 2 * rank**2 * size <= DIRECT_FLOPS
        assert rank * size * itemsize <= DIRECT_BYTES
    if solver is SolverName.CHOLESKY:
        assert 2 * rank * size**2 + size**3 / 3 <= DIRECT_FLOPS
        assert size**2 * itemsize <= DIRECT_BYTES


def test_the_choice_follows_the_shape():
    assert choose_solver(650, 14_000, 8) is SolverName.CHOLESKY
    assert choose_solver(100_000, 250, 8) is SolverName.WOODBURY
    assert choose_solver(1_000_000, 14_000, 8) is SolverName.CONJUGATE_GRADIENTS
    assert choose_solver(2_000, 10**8, 8) is SolverName.CONJUGATE_GRADIENTS
    # Where a product costs 1e13 operations, a hundred of them cost more than building the matrix.
    assert choose_solver(2_000, 10**8, 8, product_flops=1e13) is SolverName.CHOLESKY
    assert choose_solver(2_000, 10**8, 8, product_flops=1e10) is SolverName.CONJUGATE_GRADIENTS
    # A linear head's matrix is built at a fraction of what its rows say.
    assert choose_solver(2_000, 10**8, 8, product_flops=1e9, dense_flops=1e11) is SolverName.CHOLESKY


@dataclass(frozen=True)
class Fixed:
    """A curvature that is a given matrix of a stated rank, with a factor only where it is definite."""

    matrix: Tensor
    rank: int

    @property
    def size(self) -> int:
        return len(self.matrix)

    def rank_bound(self) -> int:
        return self.rank

    def product_flops(self) -> float:
        return 0.0

    def dense_flops(self) -> float:
        return float(2 * self.rank * self.size**2)

    def matvec(self, vector: Tensor) -> Tensor:
        return self.matrix @ vector

    def mean_diagonal(self) -> float:
        return float(self.matrix.diagonal().mean())

    def dense(self) -> Tensor:
        return self.matrix

    def factor(self) -> Tensor:
        values, vectors = torch.linalg.eigh(self.matrix)
        if values[0] < 0:
            raise IndefiniteCurvature("no factor")
        return values.sqrt()[:, None] * vectors.T


def test_systems_are_prepared_as_chosen():
    identity = torch.eye(4, dtype=torch.float64)
    assert isinstance(prepare_system(Fixed(identity, 10), torch.float64), DenseSystem)
    assert isinstance(prepare_system(Fixed(identity, 3), torch.float64), WoodburySystem)
    assert isinstance(prepare_system(Fixed(identity, 10**15), torch.float64), ProductSystem)


def test_without_a_factor_another_way_takes_over():
    matrix = torch.diag(torch.tensor([1.0, -0.5, 0.0, 0.0], dtype=torch.float64))
    system = prepare_system(Fixed(matrix, 2), torch.float64)
    assert isinstance(system, DenseSystem)
    assert system.solve(torch.ones(4, dtype=torch.float64), 1.0).x[1] == pytest.approx(2.0)
