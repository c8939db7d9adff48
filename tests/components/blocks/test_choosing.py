from __future__ import annotations

import itertools

import pytest
import torch

from oubli.components.blocks.blanket import BlanketPlan, select_blanket
from oubli.components.blocks.choosing import BlockChoice, select_block, slice_norms
from oubli.components.blocks.slices import find_slices
from oubli.components.blocks.union import UnionRule
from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.model.gradients import per_sample_gradients
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective

OF_A_SIZE = (BlockChoice.TOP_GRADIENT, BlockChoice.RANDOM)


@pytest.fixture
def removed(images):
    return images.select(torch.tensor([3, 5, 8]))


@pytest.mark.parametrize("choice", [BlockChoice.L_FOCI, BlockChoice.L_FOCI_BATCH])
def test_l_foci_blocks_are_blankets(network_objective, removed, choice):
    theta = network_objective.theta()
    block = select_block(choice, network_objective, theta, removed, BlanketPlan(perturbations=100), seed=3)
    blanket = select_blanket(
        network_objective,
        theta,
        removed,
        BlanketPlan(perturbations=100),
        seed=3,
        batch=choice is BlockChoice.L_FOCI_BATCH,
    )
    assert block.choice is choice
    assert torch.equal(block.indices, blanket.indices)
    assert block.slices == blanket.slices
    assert block.blanket.selections == blanket.selections
    assert block.candidates == 9
    assert block.norms is None
    assert not block.empty
    assert block.size(network_objective) == len(blanket.indices)


def test_full_is_every_parameter(network_objective, removed):
    seen: list[float] = []
    block = select_block(
        BlockChoice.FULL, network_objective, network_objective.theta(), removed, seed=0, on_progress=seen.append
    )
    assert block.indices is None
    assert not block.empty
    assert block.size(network_objective) == network_objective.space.d
    assert seen == [1.0]


def test_the_top_gradient_is_that_of_brute_force(network_objective, removed):
    """Norms from one-sample gradients, then slices from the largest down, while they fit."""
    theta = network_objective.theta()
    total = torch.cat(list(per_sample_gradients(network_objective, theta, removed))).sum(0)
    slices = find_slices(network_objective.module)
    norms = {one: float(total[slices.indices([one])].norm()) for one in slices.slices}
    assert slice_norms(slices, total) == pytest.approx(norms)
    assert len(set(norms.values())) == 9
    for size in (13, 20, 31, 40):
        left, expected = size, set()
        for one in sorted(norms, key=norms.get, reverse=True):
            if len(slices.indices([one])) <= left:
                expected.add(one)
                left -= len(slices.indices([one]))
        block = select_block(BlockChoice.TOP_GRADIENT, network_objective, theta, removed, seed=0, size=size)
        assert set(block.slices) == expected
        assert block.norms == pytest.approx([norms[one] for one in block.slices])
        assert torch.equal(block.indices, slices.indices(expected))


def test_random_blocks_come_from_the_seed(network_objective, removed):
    theta = network_objective.theta()
    blocks = [
        select_block(BlockChoice.RANDOM, network_objective, theta, removed, seed=seed, size=30) for seed in range(12)
    ]
    again = select_block(BlockChoice.RANDOM, network_objective, theta, removed, seed=4, size=30)
    assert again.slices == blocks[4].slices
    assert len({one.slices for one in blocks}) > 6
    for block in blocks:
        assert len(block.indices) <= 30
        assert torch.equal(block.indices, find_slices(network_objective.module).indices(block.slices))


@pytest.mark.parametrize("choice", OF_A_SIZE)
def test_a_size_beyond_the_network_takes_every_slice(network_objective, removed, choice):
    theta = network_objective.theta()
    block = select_block(choice, network_objective, theta, removed, seed=0, size=10**6)
    assert len(block.slices) == block.candidates == 9
    assert len(block.indices) == network_objective.space.d


def test_a_size_limits_l_foci(network_objective, removed):
    theta = network_objective.theta()

    def block(limit: int | None, union: UnionRule | None = None, way: BlockChoice = BlockChoice.L_FOCI) -> int:
        found = select_block(
            way,
            network_objective,
            theta,
            removed,
            BlanketPlan(perturbations=100, union=union or UnionRule()),
            seed=3,
            size=limit,
        )
        return len(found.indices)

    whole = block(None)
    assert block(whole) == whole
    assert 0 < block(whole - 1) < whole
    assert block(whole, UnionRule(max_parameters=whole - 1)) == block(whole - 1)
    assert block(whole - 1, UnionRule(max_parameters=whole)) == block(whole - 1)
    # Here the batch selects one slice, and a block has at least one.
    assert block(None, way=BlockChoice.L_FOCI_BATCH) == block(5, way=BlockChoice.L_FOCI_BATCH) == 13


@pytest.mark.parametrize("choice", [one for one in BlockChoice if one is not BlockChoice.FULL])
def test_only_trained_parameters_are_in_a_block(network, removed, choice):
    head = Objective(network, cross_entropy, 1e-2, trained=("6",))
    block = select_block(choice, head, head.theta(), removed, BlanketPlan(perturbations=60), seed=0, size=26)
    assert {one.module for one in block.slices} == {"6"}
    assert 0 < len(block.indices) <= 26


def test_the_ways_are_distinct(network_objective, removed):
    theta = network_objective.theta()
    blocks = [
        select_block(one, network_objective, theta, removed, BlanketPlan(perturbations=100), seed=1, size=30).slices
        for one in (BlockChoice.L_FOCI, BlockChoice.TOP_GRADIENT, BlockChoice.RANDOM)
    ]
    assert all(one != other for one, other in itertools.combinations(blocks, 2))


@pytest.mark.parametrize("choice", OF_A_SIZE)
def test_what_cannot_be_chosen_is_refused(network_objective, removed, choice):
    theta = network_objective.theta()
    with pytest.raises(ConfigurationError, match="needs a size"):
        select_block(choice, network_objective, theta, removed, seed=0)
    with pytest.raises(ConfigurationError, match="size is 0"):
        select_block(choice, network_objective, theta, removed, seed=0, size=0)
    nothing = removed.select(torch.tensor([], dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="removal set is empty"):
        select_block(choice, network_objective, theta, nothing, seed=0, size=5)
    with pytest.raises(NonFiniteInput):
        select_block(choice, network_objective, theta * torch.nan, removed, seed=0, size=5)
