from __future__ import annotations

import pytest
import torch

from oubli.components.curvature.fisher import SampledFisher
from oubli.components.curvature.snapshots.leading_directions import LeadingDirections, LowRankCurvature
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Joined, Samples


@pytest.fixture
def restriction(network_objective) -> Restriction:
    return Restriction(network_objective, network_objective.theta(), None)


def rows_of(restriction: Restriction, samples: Samples) -> torch.Tensor:
    return SampledFisher(restriction, samples, seed=5).factor() * len(samples) ** 0.5


def test_with_every_sample_and_direction_it_is_the_sampled_fisher(restriction, images):
    kept = LeadingDirections.take(restriction, images, seed=5)
    estimate = kept.basis.T @ torch.diag(kept.values) @ kept.basis
    torch.testing.assert_close(estimate, SampledFisher(restriction, images, seed=5).dense(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(kept.basis @ kept.basis.T, torch.eye(len(kept.values), dtype=torch.float64))
    assert bool((kept.values[:-1] >= kept.values[1:]).all())


@pytest.mark.parametrize("block", [None, torch.tensor([0, 4, 30, 31])])
def test_less_the_removed_it_is_then_the_sampled_fisher_over_the_retained_samples(restriction, images, block):
    removed, retained = images.select(torch.arange(6)), images.select(torch.arange(6, 20))
    kept = LeadingDirections.take(restriction, images, seed=5)
    part = Restriction(restriction.objective, restriction.theta, block)
    found = kept.less(restriction, removed, len(images), seed=5).on(part.indices)
    expected = SampledFisher(part, retained, seed=5).dense()
    torch.testing.assert_close(found.dense(), expected, rtol=1e-8, atol=1e-11)
    vector = torch.ones(found.size, dtype=torch.float64)
    torch.testing.assert_close(found.matvec(vector), expected @ vector, rtol=1e-8, atol=1e-11)
    solved = found.system().solve(vector, 0.3).x
    torch.testing.assert_close(expected @ solved + 0.3 * solved, vector, rtol=1e-7, atol=1e-9)


def test_the_leading_directions_are_the_best_of_their_number(restriction, images):
    few = LeadingDirections.take(restriction, images, seed=5, directions=3)
    left, values, right = torch.linalg.svd(rows_of(restriction, images) / len(images) ** 0.5, full_matrices=False)
    del left
    torch.testing.assert_close(few.values, values[:3] ** 2, rtol=1e-8, atol=0)
    torch.testing.assert_close((few.basis * right[:3]).sum(1).abs(), torch.ones(3, dtype=torch.float64))


def test_more_removed_than_the_estimate_holds_leaves_nothing_negative(restriction, images):
    few = LeadingDirections.take(restriction, images, seed=5, samples=4)
    removed = images.select(torch.arange(15))
    found = few.less(restriction, removed, len(images), seed=5).on(restriction.indices)
    assert float(torch.linalg.eigvalsh(found.dense())[0]) > -1e-12
    # Its diagonal is no larger than that of what was kept, scaled to the samples that are left.
    most = few.basis.T @ torch.diag(few.values) @ few.basis * 20 / 5
    assert bool((found.dense().diagonal() <= most.diagonal() + 1e-12).all())


def test_the_samples_looked_at_are_drawn_evenly_and_read_in_one_pass(restriction, images):
    halves = Joined((images.select(torch.arange(9)), images.select(torch.arange(9, 20))))
    one = LeadingDirections.take(restriction, images, seed=2, samples=7)
    other = LeadingDirections.take(restriction, halves, seed=2, samples=7)
    torch.testing.assert_close(one.values, other.values)
    chosen = torch.randperm(20, generator=torch.Generator().manual_seed(2))[:7].sort().values
    rows = SampledFisher(restriction, images.select(chosen), seed=2).dense()
    torch.testing.assert_close(one.basis.T @ torch.diag(one.values) @ one.basis, rows, rtol=1e-8, atol=1e-11)


def test_a_block_smaller_than_the_rank_is_solved_by_cholesky():
    factor = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curvature = LowRankCurvature(factor)
    b = torch.ones(3, dtype=torch.float64)
    expected = torch.linalg.solve(factor.T @ factor + 0.2 * torch.eye(3, dtype=torch.float64), b)
    torch.testing.assert_close(curvature.system().solve(b, 0.2).x, expected)
