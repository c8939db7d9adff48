from __future__ import annotations

import copy

import pytest
import scoped_network
import torch
from torch import Tensor, nn

from oubli.components.errors import ConfigurationError, NumericalError
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.model.state import ModelState
from oubli.components.removal.descent import Checkpoints, Optimiser
from oubli.components.removal.surrogate import SurrogatePlan, TrainingSettings, train_surrogate

L2 = 1e-2
SGD = TrainingSettings(Optimiser.SGD, peak_rate=0.05, batch_size=8, epochs=10)
ADAM = TrainingSettings(Optimiser.ADAM, peak_rate=0.003, batch_size=8, epochs=10)


def same(first: ModelState, second: ModelState) -> bool:
    """Bit for bit."""
    return torch.equal(first.theta, second.theta) and all(
        torch.equal(first.buffers[name], second.buffers[name]) for name in first.buffers.keys() | second.buffers.keys()
    )


def fresh(network: nn.Module, seed: int = 3) -> nn.Module:
    """The network's architecture, initialised anew."""

    def build() -> nn.Module:
        built = copy.deepcopy(network)
        for layer in built.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        return built

    return build_seeded(build, seed)


def train(objective: Objective, network: nn.Module, samples: Samples, plan: SurrogatePlan, **options) -> ModelState:
    return train_surrogate(objective, objective.theta(), fresh(network), samples, plan, seed=5, **options)


@pytest.mark.parametrize("training", [SGD, ADAM])
def test_the_result_is_that_of_an_ordinary_training_loop(network, images, training):
    network[3].p = 0.0  # the loop below draws no dropout
    plan = SurrogatePlan(training, epochs=2, rate_factor=2.0, warm_up=2)
    objective = Objective(network, cross_entropy, L2)
    state = train(objective, network, images, plan)

    module = fresh(network).double().train()
    start = dict(copy.deepcopy(network).double().named_parameters())
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(0.4 * start[name] + 0.6 * parameter)
    rate = 2 * training.peak_rate
    if training is SGD:
        optimiser: torch.optim.Optimizer = torch.optim.SGD(module.parameters(), rate, momentum=0.9, weight_decay=L2)
    else:
        optimiser = torch.optim.Adam(module.parameters(), rate, weight_decay=L2)
    draws = torch.Generator().manual_seed(5)
    # 20 samples in batches of 8: 3 steps an epoch; 2 steps up, then a half cosine over the other 4.
    factors = iter([0.5, 1.0, 1.0, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2])
    for _ in range(2):
        order = torch.randperm(20, generator=draws)
        torch.randint(2**62, (), generator=draws)
        for chosen in (order[:8], order[8:16], order[16:]):
            optimiser.param_groups[0]["lr"] = rate * next(factors)
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(images.inputs[chosen]), images.labels[chosen]).backward()
            optimiser.step()
    torch.testing.assert_close(state.theta, objective.space.theta_of(module), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(state.buffers["1.running_mean"], module[1].running_mean, rtol=1e-8, atol=1e-10)
    assert state.buffers["1.num_batches_tracked"].item() == 6


def test_the_start_lies_between_the_weights_and_the_initialisation(network, images):
    objective = Objective(network, cross_entropy, L2)
    initial = objective.space.theta_of(fresh(network).double())
    for kept in (0.0, 0.4, 1.0):
        states: list[dict[str, Tensor]] = []
        # A rate of next to nothing leaves the start.
        plan = SurrogatePlan(SGD, kept=kept, rate_factor=1e-12)
        train(objective, network, images, plan, checkpoints=Checkpoints(save=states.append))
        expected = kept * objective.theta() + (1 - kept) * initial
        torch.testing.assert_close(states[-1]["values"], expected, rtol=0, atol=1e-9)


def test_the_same_seed_gives_the_same_bits_and_no_global_state_moves(network, images):
    objective = Objective(network, cross_entropy, L2, dtype=torch.float32)
    before, drawn = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    held = copy.deepcopy(objective.module.state_dict())
    first = train(objective, network, images, SurrogatePlan(SGD))
    torch.rand(7)  # what others draw in between does not matter
    torch.set_rng_state(drawn)
    second = train(objective, network, images, SurrogatePlan(SGD))
    assert same(first, second)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(value, held[name]) for name, value in objective.module.state_dict().items())
    torch.rand(7)
    assert same(first, train(objective, network, images, SurrogatePlan(SGD)))
    other = train_surrogate(objective, objective.theta(), fresh(network), images, SurrogatePlan(SGD), seed=6)
    assert not same(first, other)


@pytest.mark.parametrize("training", [SGD, ADAM])
def test_a_resumed_run_gives_the_same_bits(network, images, training):
    objective = Objective(network, cross_entropy, L2, dtype=torch.float32)  # with dropout
    plan, states = SurrogatePlan(training, epochs=3), []
    whole = train(objective, network, images, plan, checkpoints=Checkpoints(save=states.append))
    assert len(states) == 3
    assert all(isinstance(value, Tensor) for value in states[0].values())
    for state in states:
        told: list[float] = []
        resumed = train(
            objective, network, images, plan, checkpoints=Checkpoints(resume=state), on_progress=told.append
        )
        assert same(whole, resumed)
    assert told == []  # the last state was the end
    with pytest.raises(ConfigurationError, match="another run"):
        train(objective, network, images, SurrogatePlan(training), checkpoints=Checkpoints(resume=states[0]))


def test_progress_is_told_after_each_epoch(network, images):
    told: list[float] = []
    objective = Objective(network, cross_entropy, L2)
    train(objective, network, images, SurrogatePlan(SGD, epochs=4), on_progress=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_what_is_frozen_is_the_original_models(images):
    module = build_seeded(scoped_network.build, 1)
    objective = Objective(module, cross_entropy, L2, trained=("head",))
    other = build_seeded(scoped_network.build, 2)
    samples = Samples(images.inputs.flatten(1)[:, :6], images.labels)
    state = train_surrogate(objective, objective.theta(), other, samples, SurrogatePlan(SGD), seed=0)
    assert state.theta.shape == (objective.space.d,)
    assert state.buffers == {}
    moved = state.within(objective).module.state_dict()
    for name, value in objective.module.state_dict().items():
        assert torch.equal(value, moved[name]) != name.startswith("head."), name


def test_trained_statistics_start_from_the_fresh_model_and_move(network, images):
    objective = Objective(network, cross_entropy, L2)
    objective.module[1].running_mean.fill_(1e6)
    state = train(objective, network, images, SurrogatePlan(SGD))
    assert float(state.buffers["1.running_mean"].abs().max()) < 10


def test_tokens_are_learnt_from():
    module = build_seeded(lambda: scoped_network.build_texts(30, 6, 3), 1)
    tokens = torch.randint(1, 30, (40, 5), generator=torch.Generator().manual_seed(0))
    samples = Samples(tokens, tokens[:, 0] % 3)
    objective = Objective(module, cross_entropy, 0.0)
    other = build_seeded(lambda: scoped_network.build_texts(30, 6, 3), 2)
    plan = SurrogatePlan(TrainingSettings(Optimiser.ADAM, 0.02, 8, 50), epochs=40)
    state = train_surrogate(objective, objective.theta(), other, samples, plan, seed=0)
    right = state.within(objective).module(tokens).argmax(1) == samples.labels
    assert float(right.double().mean()) > 0.9


def test_a_last_batch_of_one_sample_is_joined(network, images):
    seventeen = images.select(torch.arange(17))
    states: list[dict[str, Tensor]] = []
    objective = Objective(network, cross_entropy, L2)
    train(objective, network, seventeen, SurrogatePlan(SGD, epochs=1), checkpoints=Checkpoints(save=states.append))
    assert states[-1]["done"].item() == 2  # 8 and 9; normalising one sample would fail


def test_of_a_large_set_a_part_is_seen_and_the_rate_still_falls_to_0(network, images):
    plan = SurrogatePlan(SGD, epochs=3, most_samples=36, rate_factor=1.0, warm_up=1)
    assert plan.steps(20) == 5  # 36 / 8, rounded up; 3 a pass
    assert plan.steps(10) == 5  # of 6
    states: list[dict[str, Tensor]] = []
    objective = Objective(network, cross_entropy, L2)
    whole = train(objective, network, images, plan, checkpoints=Checkpoints(save=states.append))
    assert [state["done"].item() for state in states] == [3, 5]
    assert plan.rate(4, 5) == pytest.approx(0.05 * (1 - 0.5**0.5) / 2)  # the last of 4 along the cosine
    assert same(train(objective, network, images, plan, checkpoints=Checkpoints(resume=states[0])), whole)


def test_wrong_arguments_are_refused(network, images):
    objective = Objective(network, cross_entropy, L2)
    with pytest.raises(ConfigurationError, match="No sample is retained"):
        train(objective, network, images.select(torch.arange(0)), SurrogatePlan(SGD))
    with pytest.raises(ConfigurationError, match="lacks buffers"):
        train_surrogate(objective, objective.theta(), nn.Linear(2, 2), images, SurrogatePlan(SGD), seed=0)
    with pytest.raises(ConfigurationError, match="fewer than training"):
        SurrogatePlan(SGD, epochs=10)
    with pytest.raises(ConfigurationError, match="kept"):
        SurrogatePlan(SGD, kept=1.5)
    with pytest.raises(ConfigurationError, match="peak_rate"):
        TrainingSettings(Optimiser.SGD, 0.0, 8, 10)
    with pytest.raises(NumericalError, match="Lower rate_factor"):
        train(objective, network, images, SurrogatePlan(SGD, rate_factor=1e200))
