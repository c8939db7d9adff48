from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import scoped_network
import torch
from torch import Tensor, nn
from torch.nn import functional

from oubli.components.errors import ConfigurationError, NonFiniteInput, NumericalError
from oubli.components.model.losses import bce_with_logits, cross_entropy, mse
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.model.state import ModelState, output_table
from oubli.components.removal.descent import Checkpoints
from oubli.components.removal.matching import MatchingData, MatchingPlan, _Draws, match_targets
from oubli.components.removal.output_families import output_family

L2 = 1e-2
PLAN = MatchingPlan(steps=5, removed_batch=3, uniform_batch=4, hard_batch=2, rate_of_one=1e-2, rate_of_many=1e-2)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(first: ModelState, second: ModelState) -> bool:
    """Bit for bit."""
    return torch.equal(first.theta, second.theta) and all(
        torch.equal(first.buffers[name], second.buffers[name]) for name in first.buffers.keys() | second.buffers.keys()
    )


def data_for(objective: Objective, samples: Samples, m: int = 5) -> MatchingData:
    """The first m samples are removed; their targets are noise."""
    removed, retained = samples.select(torch.arange(m)), samples.select(torch.arange(m, len(samples)))
    teacher = output_table(objective, objective.theta(), retained)
    targets = normal(m, *teacher.shape[1:], seed=11).to(teacher)
    hardness = normal(len(retained), seed=12).abs().clamp(1e-3, 4)
    return MatchingData(removed, targets, retained, teacher, hardness)


def test_the_result_is_that_of_an_ordinary_training_loop(network, images):
    objective = Objective(network, cross_entropy, L2)
    data = data_for(objective, images)
    state = match_targets(objective, objective.theta(), data, PLAN, seed=4)

    module = copy.deepcopy(network).double().eval()
    module[1].train()
    optimiser = torch.optim.Adam(module.parameters(), 1e-2, betas=(0.9, 0.99))
    draws = torch.Generator().manual_seed(4)
    for step in range(5):
        removed = torch.randperm(5, generator=draws)[:3]
        chosen = torch.randint(15, (4,), generator=draws).tolist()
        for point in torch.rand(2, generator=draws, dtype=torch.float64).tolist():
            left = point * float(data.hardness.sum())
            place = 0
            while left >= float(data.hardness[place]):
                left -= float(data.hardness[place])
                place += 1
            chosen.append(place)
        outputs = module(torch.cat([data.removed.inputs[removed], data.retained.inputs[chosen]]))

        def distance(teacher: Tensor, found: Tensor) -> Tensor:
            teacher, found = (one - one.mean(1, keepdim=True) for one in (teacher, found))
            kl = functional.kl_div(found.log_softmax(1), teacher.softmax(1), reduction="batchmean")
            return kl + 0.5 * functional.mse_loss(found, teacher)

        loss = distance(data.targets[removed], outputs[:3]) + distance(data.teacher[chosen], outputs[3:])
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * step / 5)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(state.theta, objective.space.theta_of(module), rtol=1e-7, atol=1e-9)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(state.buffers[f"1.{name}"], getattr(module[1], name), rtol=1e-7, atol=1e-9)


def test_the_model_moves_to_its_targets_and_stays_on_the_retained_samples(network, images):
    objective = Objective(network, cross_entropy, L2)
    data = data_for(objective, images, m=2)
    plan = MatchingPlan(steps=300, rate_of_one=1e-2, rate_of_many=1e-2)
    state = match_targets(objective, objective.theta(), data, plan, seed=0)
    family = output_family(cross_entropy, data.teacher)

    def distances(of: ModelState) -> tuple[float, float]:
        model = of.within(objective)
        pairs = ((data.targets, data.removed), (data.teacher, data.retained))
        on = [float(family.distance(t, output_table(model, of.theta, s)).mean()) for t, s in pairs]
        return on[0], on[1]

    removed, retained = distances(state)
    assert removed < 0.1 * distances(ModelState.of(objective))[0]
    assert retained < 0.1


def test_the_same_seed_gives_the_same_bits_and_nothing_else_moves(network, images):
    objective = Objective(network, cross_entropy, L2, dtype=torch.float32)
    theta = objective.theta()
    data = data_for(objective, images)
    before, held = copy.deepcopy(network.state_dict()), copy.deepcopy(objective.module.state_dict())
    kept = theta.clone()
    first = match_targets(objective, theta, data, PLAN, seed=1)
    torch.rand(3)  # dropout is off, so no global draw matters
    drawn = torch.get_rng_state()
    assert same(first, match_targets(objective, theta, data, PLAN, seed=1))
    assert torch.equal(drawn, torch.get_rng_state())
    assert not same(first, match_targets(objective, theta, data, PLAN, seed=2))
    assert torch.equal(theta, kept)
    for module, state in ((network, before), (objective.module, held)):
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not objective.module[1].training


@pytest.mark.parametrize("blocked", [False, True])
def test_a_resumed_run_gives_the_same_bits(network, images, blocked):
    objective = Objective(network, cross_entropy, L2, dtype=torch.float32)
    data, states = data_for(objective, images), []
    block = torch.arange(4, 30) if blocked else None

    def run(checkpoints: Checkpoints) -> ModelState:
        return match_targets(objective, objective.theta(), data, PLAN, seed=1, block=block, checkpoints=checkpoints)

    whole = run(Checkpoints(save=states.append, every=2))
    assert [int(state["done"]) for state in states] == [2, 4, 5]
    assert all(isinstance(value, Tensor) for value in states[0].values())
    for state in states:
        assert same(whole, run(Checkpoints(resume=state)))
    with pytest.raises(ConfigurationError, match="another run"):
        match_targets(
            objective, objective.theta(), data, PLAN, seed=2, block=block, checkpoints=Checkpoints(resume=states[0])
        )


def test_progress_is_told_after_each_step(network, images):
    objective = Objective(network, cross_entropy, L2)
    told: list[float] = []
    match_targets(objective, objective.theta(), data_for(objective, images), PLAN, seed=0, on_progress=told.append)
    assert told == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_statistics_follow_the_batches_and_dropout_is_off(network, images):
    network[3].p = 0.999  # nothing would be learnt
    objective = Objective(network, cross_entropy, L2)
    data = data_for(objective, images)
    # Without momentum, the running statistics are those of the last batch, whatever they were before.
    objective.module[1].momentum = 1.0
    objective.module[1].running_mean.fill_(1e3)
    plan = replace(PLAN, steps=1)
    state = match_targets(objective, objective.theta(), data, plan, seed=7)
    batch = _Draws(data, plan).batch(torch.Generator().manual_seed(7))
    seen = objective.module[0](batch.inputs)
    torch.testing.assert_close(state.buffers["1.running_mean"], seen.mean((0, 2, 3)))
    torch.testing.assert_close(state.buffers["1.running_var"], seen.transpose(0, 1).flatten(1).var(1))
    assert state.buffers["1.num_batches_tracked"].item() == 1
    # All parameters behind the dropout have moved: it let their gradients through.
    moved = state.theta != objective.theta()
    assert bool(moved[list(objective.space.range_of("6.weight"))].all())


def test_only_the_scope_moves(images):
    module = build_seeded(scoped_network.build, 1)
    samples = Samples(images.inputs.flatten(1)[:, :6], images.labels)
    for trained in (("head",), ("backbone.0", "head"), ("backbone",)):
        objective = Objective(module, cross_entropy, L2, trained=trained)
        state = match_targets(objective, objective.theta(), data_for(objective, samples), PLAN, seed=0)
        moved = state.within(objective).module.state_dict()
        for name, value in objective.module.state_dict().items():
            inside = any(name.startswith(scope) for scope in trained)
            assert torch.equal(value, moved[name]) != inside, (trained, name)


def test_only_the_block_moves(network, images):
    objective = Objective(network, cross_entropy, L2)
    block = torch.tensor([0, 5, 40, 41, 50])
    state = match_targets(objective, objective.theta(), data_for(objective, images), PLAN, seed=0, block=block)
    moved = (state.theta != objective.theta()).nonzero().flatten()
    assert torch.equal(moved, block)
    assert all(
        torch.equal(value, dict(objective.module.named_buffers())[name]) for name, value in state.buffers.items()
    )
    with pytest.raises(ConfigurationError, match="block"):
        match_targets(
            objective, objective.theta(), data_for(objective, images), PLAN, seed=0, block=torch.tensor([5, 0])
        )


def test_a_whole_block_moves_as_no_block_does(images):
    module = build_seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)), 2)
    objective = Objective(module, cross_entropy, L2)
    data, theta = data_for(objective, images), objective.theta()
    whole = match_targets(objective, theta, data, PLAN, seed=0, block=torch.arange(len(theta)))
    torch.testing.assert_close(whole.theta, match_targets(objective, theta, data, PLAN, seed=0).theta)


@pytest.mark.parametrize("loss", [bce_with_logits, mse])
def test_other_losses_are_matched(loss, network, images):
    objective = Objective(network, loss, L2)
    data = data_for(objective, Samples(images.inputs, normal(20, 3, seed=2)), m=3)
    plan = MatchingPlan(steps=200, rate_of_one=1e-2, rate_of_many=1e-2)
    state = match_targets(objective, objective.theta(), data, plan, seed=0)
    family = output_family(loss, data.teacher)
    before = family.distance(data.targets, output_table(objective, objective.theta(), data.removed)).mean()
    after = family.distance(data.targets, output_table(state.within(objective), state.theta, data.removed)).mean()
    assert float(after) < 0.2 * float(before)


def test_tokens_are_matched():
    module = build_seeded(lambda: scoped_network.build_texts(30, 6, 3), 1)
    tokens = torch.randint(1, 30, (40, 5), generator=torch.Generator().manual_seed(0))
    objective = Objective(module, cross_entropy, 0.0)
    data = data_for(objective, Samples(tokens, tokens[:, 0] % 3), m=1)
    assert not torch.equal(match_targets(objective, objective.theta(), data, PLAN, seed=0).theta, objective.theta())


def test_a_loss_without_calibration_is_refused(network, images):
    def margin(outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.sum(1)

    objective = Objective(network, margin, L2)
    with pytest.raises(ConfigurationError, match="'margin'"):
        match_targets(objective, objective.theta(), data_for(objective, images), PLAN, seed=0)


def test_the_rate_goes_with_the_number_of_samples():
    plan = MatchingPlan()
    assert [plan.rate(m) for m in (1, 10, 100, 5000)] == pytest.approx([2e-4, 2e-4 * 10**0.5, 2e-3, 2e-3])


def test_on_a_block_the_rate_makes_steps_as_long_as_on_all_parameters():
    plan = MatchingPlan()
    # Adam's first step moves each of d_P parameters by the rate: its length is rate * sqrt(d_P).
    assert plan.rate(1, 25 / 10_000) * 25**0.5 == pytest.approx(plan.rate(1) * 10_000**0.5)


def test_hard_samples_are_drawn_in_proportion(network, images):
    objective = Objective(network, cross_entropy, L2)
    data = replace(data_for(objective, images), hardness=torch.arange(15.0))
    plan = MatchingPlan(removed_batch=5, uniform_batch=30000, hard_batch=30000)
    marked = replace(data, retained=Samples(torch.arange(15.0)[:, None], torch.zeros(15)))
    marked = replace(marked, removed=Samples(-torch.ones(5, 1), torch.zeros(5)))
    batch = _Draws(marked, plan).batch(torch.Generator().manual_seed(0))
    assert batch.removed == 5
    assert torch.equal(batch.teacher[5:], data.teacher[batch.inputs[5:, 0].long()])
    uniform, hard = batch.inputs[5:30005, 0].long(), batch.inputs[30005:, 0].long()
    # Six standard deviations of a share of 1/15, and of 14/105, in 30,000 draws.
    assert torch.allclose(uniform.bincount(minlength=15) / 30000, torch.full((15,), 1 / 15), atol=0.009)
    assert torch.allclose(hard.bincount(minlength=15) / 30000, torch.arange(15.0) / 105, atol=0.012)
    assert 0 not in hard


def test_data_that_do_not_fit_are_refused(network, images):
    objective = Objective(network, cross_entropy, L2)
    data = data_for(objective, images)
    with pytest.raises(ConfigurationError, match="5 removed samples with 4 targets, 15 retained ones with 15 outputs"):
        replace(data, targets=data.targets[:4])
    with pytest.raises(NonFiniteInput):
        replace(data, teacher=torch.full_like(data.teacher, torch.nan))
    with pytest.raises(ConfigurationError, match="all 0"):
        replace(data, hardness=torch.zeros(15))
    with pytest.raises(ConfigurationError, match="outputs have shape"):
        match_targets(
            objective,
            objective.theta(),
            replace(data, targets=data.targets[:, :2], teacher=data.teacher[:, :2]),
            PLAN,
            seed=0,
        )
    steep = replace(PLAN, rate_of_one=1e300, rate_of_many=1e300)
    with pytest.raises(NumericalError, match="Lower the plan's rates"):
        match_targets(objective, objective.theta(), data, steep, seed=0)
    with pytest.raises(ConfigurationError, match="positive"):
        MatchingPlan(steps=0)
