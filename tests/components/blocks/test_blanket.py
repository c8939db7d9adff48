from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from oubli.components.blocks import activations, blanket
from oubli.components.blocks.blanket import BlanketPlan, select_blanket
from oubli.components.blocks.perturbation import (
    GaussianPerturbation,
    TokenPerturbation,
    TokenVocabulary,
    gaussian_copies,
)
from oubli.components.blocks.slices import Slice, find_slices
from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.lfoci import StopReason, l_foci
from oubli.components.lfoci.columns import NOISE_SCALE
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded


def test_the_block_is_the_union_of_the_selections(network_objective, images):
    removed = images.select(torch.tensor([3, 5, 8]))
    seen: list[float] = []
    found = select_blanket(
        network_objective,
        network_objective.theta(),
        removed,
        BlanketPlan(perturbations=200),
        seed=0,
        on_progress=seen.append,
    )
    assert seen == pytest.approx([0.5, 1.0])
    assert found.candidates == 9
    assert found.unsliced == ()
    assert len(found.selections) == 3
    assert found.noise_scale == NOISE_SCALE
    chosen = {one for selection in found.selections for one in selection.order}
    assert set(found.slices) == chosen
    assert chosen
    for one, count in zip(found.slices, found.counts, strict=True):
        assert count == sum(one in selection.order for selection in found.selections)
    assert torch.equal(found.indices, find_slices(network_objective.module).indices(chosen))


def test_a_selection_depends_on_the_seed_and_its_own_sample_alone(network_objective, images):
    theta = network_objective.theta()
    removed = images.select(torch.tensor([3, 5]))
    both = select_blanket(network_objective, theta, removed, BlanketPlan(perturbations=200), seed=4)
    assert (
        select_blanket(network_objective, theta, removed, BlanketPlan(perturbations=200), seed=4).selections
        == both.selections
    )
    first = select_blanket(
        network_objective, theta, images.select(torch.tensor([3])), BlanketPlan(perturbations=200), seed=4
    )
    assert first.selections[0] == both.selections[0]
    other = select_blanket(network_objective, theta, removed, BlanketPlan(perturbations=200), seed=5)
    assert [one.scores for one in other.selections] != [one.scores for one in both.selections]


def test_neither_chunks_nor_threads_change_the_selection(network_objective, images):
    theta, removed = network_objective.theta(), images.select(torch.tensor([1, 2, 6, 7, 11]))

    def select(**how: int) -> blanket.Blanket:
        return select_blanket(network_objective, theta, removed, BlanketPlan(perturbations=150, **how), seed=1)

    whole = select(threads=1)
    # One table of 150 x 9 numbers and its copy is 21,600 bytes: two at a time, then one at a time.
    for pieces in (select(budget_bytes=45_000, threads=2), select(budget_bytes=30_000, threads=2)):
        assert [one.order for one in pieces.selections] == [one.order for one in whole.selections]
        assert torch.equal(pieces.indices, whole.indices)


def test_a_selection_is_that_of_the_selected_record(network_objective, images):
    """Against the parts it is made of: copies, record and L-FOCI by hand."""
    theta, removed = network_objective.theta(), images.select(torch.tensor([3, 5]))
    found = select_blanket(network_objective, theta, removed, BlanketPlan(GaussianPerturbation(0.3), 120), seed=7)
    slices = find_slices(network_objective.module)
    root = np.random.default_rng(np.random.SeedSequence(entropy=7, spawn_key=(1,))).spawn(2)
    for place, selection in enumerate(found.selections):
        record = recorded(network_objective, removed, place)
        expected = l_foci(record.activations, record.losses, generator=root[place])
        assert selection.order == tuple(slices.slices[column] for column in expected.order)
        assert selection.scores == expected.scores


def recorded(objective: Objective, removed: Samples, place: int) -> activations.ActivationRecord:
    """120 copies with sigma 0.3 of one sample, from the stream of its place under seed 7."""
    state = np.random.SeedSequence(entropy=7, spawn_key=(0, place)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state) >> 1)
    copies = gaussian_copies(removed.inputs[place], count=120, sigma=0.3, generator=generator)
    single = replace(objective, dtype=torch.float32)
    samples = single.prepare(removed)
    slices = activations.recordable(single, single.theta(), find_slices(single.module, single.space), samples.inputs)
    labels = removed.labels[place].expand(120)
    return activations.record_activations(single, single.theta(), slices, Samples(copies, labels))


def test_one_selection_for_the_batch_is_that_of_the_means(network_objective, images):
    theta, removed = network_objective.theta(), images.select(torch.tensor([3, 5, 8]))
    found = select_blanket(
        network_objective, theta, removed, BlanketPlan(GaussianPerturbation(0.3), 120), seed=7, batch=True
    )
    records = [recorded(network_objective, removed, place) for place in range(3)]
    (child,) = np.random.default_rng(np.random.SeedSequence(entropy=7, spawn_key=(1,))).spawn(1)
    expected = l_foci(
        np.mean([one.activations for one in records], axis=0),
        np.mean([one.losses for one in records], axis=0),
        generator=child,
    )
    (selection,) = found.selections
    assert selection.order == tuple(find_slices(network_objective.module).slices[column] for column in expected.order)
    assert selection.scores == pytest.approx(expected.scores)
    assert found.slices == tuple(sorted(selection.order, key=find_slices(network_objective.module).slices.index))


def test_the_batch_of_one_sample_is_that_sample(network_objective, images):
    theta, removed = network_objective.theta(), images.select(torch.tensor([4]))
    one = select_blanket(network_objective, theta, removed, BlanketPlan(perturbations=100), seed=2)
    batch = select_blanket(network_objective, theta, removed, BlanketPlan(perturbations=100), seed=2, batch=True)
    assert batch.selections == one.selections


def test_only_trained_parameters_are_in_a_block(network, images):
    head = Objective(network, cross_entropy, 1e-2, trained=("6",))
    found = select_blanket(
        head, head.theta(), images.select(torch.tensor([3, 5])), BlanketPlan(perturbations=100), seed=0
    )
    assert found.candidates == 3
    assert {one.module for one in found.slices} == {"6"}
    assert int(found.indices.max()) < head.space.d == 39


def test_tokens_are_selected_from_by_replacing_them():
    class Bag(nn.Module):
        """Mean of token embeddings, then a linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(12, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.table(tokens).mean(1))

    objective = Objective(build_seeded(Bag, 3), cross_entropy, 0.0)
    removed = Samples(torch.tensor([[2, 3, 4, 5, 0], [3, 6, 7, 8, 9]]), torch.tensor([1, 2]))
    perturbation = TokenPerturbation(TokenVocabulary(12, frozenset({1}), padding=0), replacements=1)
    found = select_blanket(objective, objective.theta(), removed, BlanketPlan(perturbation, 80), seed=0)
    assert found.slices
    again = select_blanket(objective, objective.theta(), removed, BlanketPlan(perturbation, 80), seed=0)
    assert torch.equal(found.indices, again.indices)
    with pytest.raises(ConfigurationError, match="Gaussian noise needs continuous inputs"):
        select_blanket(objective, objective.theta(), removed, seed=0)


def test_a_selection_can_be_cut_short(network_objective, images):
    removed = images.select(torch.tensor([3, 5]))
    found = select_blanket(
        network_objective,
        network_objective.theta(),
        removed,
        BlanketPlan(perturbations=200, max_columns=1, noise_scale=1e-3),
        seed=0,
    )
    assert all(len(one.order) <= 1 for one in found.selections)
    assert found.noise_scale == 1e-3


def test_a_plan_must_be_usable():
    with pytest.raises(ConfigurationError, match="max_columns"):
        BlanketPlan(max_columns=0)


def test_the_global_generators_are_not_used(network_objective, images):
    state = torch.get_rng_state()
    select_blanket(network_objective, network_objective.theta(), images.select(torch.tensor([0])), seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_unit_that_alone_decides_the_loss_is_selected():
    class OneOfThree(nn.Module):
        """Only the second hidden unit reaches the output."""

        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(3, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.hidden(inputs)[:, 1]

    objective = Objective(OneOfThree(), lambda outputs, labels: outputs - labels, 0.0)
    theta = objective.space.flatten({"hidden.weight": torch.eye(3), "hidden.bias": torch.zeros(3)}).double()
    removed = Samples(torch.zeros(1, 3), torch.zeros(1))
    found = select_blanket(objective, theta, removed, seed=0)
    assert found.selections[0].order[0] == Slice("hidden", 1)
    assert found.selections[0].scores[0] > 0.9
    assert found.selections[0].stop in {StopReason.EXPLAINED, StopReason.NO_GAIN}


def test_a_sample_that_selects_nothing_is_recorded():
    constant = Objective(nn.Linear(2, 2), lambda outputs, labels: outputs.sum(1) * 0, 0.0)
    removed = Samples(torch.ones(2, 2), torch.zeros(2))
    found = select_blanket(constant, constant.theta(), removed, BlanketPlan(perturbations=50), seed=0)
    assert found.selected_nothing == (0, 1)
    assert [one.stop for one in found.selections] == [StopReason.CONSTANT_RESPONSE] * 2
    assert found.slices == ()
    assert len(found.indices) == 0


def test_what_cannot_be_selected_from_is_refused(network_objective, images):
    theta = network_objective.theta()
    with pytest.raises(ConfigurationError, match="removal set is empty"):
        select_blanket(network_objective, theta, images.select(torch.tensor([], dtype=torch.int64)), seed=0)

    class Bare(nn.Module):
        """Its only parameter is its own."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(16, 3))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.flatten(1) @ self.weight

    bare = Objective(Bare(), cross_entropy, 0.0)
    with pytest.raises(ConfigurationError, match="Bare has no layer that can be sliced"):
        select_blanket(bare, bare.theta(), images, seed=0)
    broken = Samples(images.inputs[:2].clone(), images.labels[:2])
    broken.inputs[1, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteInput, match="Removed sample 1"):
        select_blanket(network_objective, theta, broken, BlanketPlan(perturbations=50), seed=0)
