from __future__ import annotations

import pytest
import torch
from torch import nn

from oubli.components import activations, blanket
from oubli.components.blanket import select_blanket
from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.losses import cross_entropy
from oubli.components.objective import Objective
from oubli.components.samples import Samples
from oubli.components.selection import StopReason
from oubli.components.selection.columns import NOISE_SCALE
from oubli.components.slices import Slice, find_slices


def test_the_block_is_the_union_of_the_selections(network_objective, images):
    removed = images.select(torch.tensor([3, 5, 8]))
    seen: list[float] = []
    found = select_blanket(
        network_objective, network_objective.theta(), removed, perturbations=200, seed=0, on_progress=seen.append
    )
    assert seen == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert found.candidates == 6
    assert found.unsliced == ("1.weight", "1.bias")
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
    both = select_blanket(network_objective, theta, removed, perturbations=200, seed=4)
    assert select_blanket(network_objective, theta, removed, perturbations=200, seed=4).selections == both.selections
    first = select_blanket(network_objective, theta, images.select(torch.tensor([3])), perturbations=200, seed=4)
    assert first.selections[0] == both.selections[0]
    other = select_blanket(network_objective, theta, removed, perturbations=200, seed=5)
    assert [one.scores for one in other.selections] != [one.scores for one in both.selections]


def test_chunks_do_not_change_the_selection(network_objective, images, monkeypatch):
    theta, removed = network_objective.theta(), images.select(torch.tensor([1, 2]))
    whole = select_blanket(network_objective, theta, removed, perturbations=150, seed=1)

    def in_small_chunks(*arguments: object) -> activations.ActivationRecord:
        return activations.record_activations(*arguments, budget_bytes=30_000)

    monkeypatch.setattr(blanket, "record_activations", in_small_chunks)
    pieces = select_blanket(network_objective, theta, removed, perturbations=150, seed=1)
    assert [one.order for one in pieces.selections] == [one.order for one in whole.selections]
    assert torch.equal(pieces.indices, whole.indices)


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
    found = select_blanket(constant, constant.theta(), removed, perturbations=50, seed=0)
    assert found.selected_nothing == (0, 1)
    assert [one.stop for one in found.selections] == [StopReason.CONSTANT_RESPONSE] * 2
    assert found.slices == ()
    assert len(found.indices) == 0


def test_what_cannot_be_selected_from_is_refused(network_objective, images):
    theta = network_objective.theta()
    with pytest.raises(ConfigurationError, match="removal set is empty"):
        select_blanket(network_objective, theta, images.select(torch.tensor([], dtype=torch.int64)), seed=0)
    bare = Objective(nn.Sequential(nn.Flatten(), nn.LayerNorm(16)), cross_entropy, 0.0)
    with pytest.raises(ConfigurationError, match="no Linear or Conv layer"):
        select_blanket(bare, bare.theta(), images, seed=0)
    broken = Samples(images.inputs[:2].clone(), images.labels[:2])
    broken.inputs[1, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteInput, match="Removed sample 1"):
        select_blanket(network_objective, theta, broken, perturbations=50, seed=0)
