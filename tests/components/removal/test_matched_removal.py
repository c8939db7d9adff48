"""From a trained network to a removal, as a flow puts the parts together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded
from oubli.components.model.state import ModelState, output_table
from oubli.components.reference.training import fit_minibatch
from oubli.components.removal.descent import Optimiser
from oubli.components.removal.matching import MatchingData, MatchingPlan, match_targets
from oubli.components.removal.output_families import Softmax
from oubli.components.removal.surrogate import SurrogatePlan, TrainingSettings, train_surrogate
from oubli.components.removal.targets import hardness, removal_targets

L2, EPOCHS, RATE, BATCH, M = 0.0, 100, 1e-2, 32, 20


def build(seed: int) -> nn.Module:
    return build_seeded(
        lambda: nn.Sequential(nn.Linear(10, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 3)),
        seed,
    )


def classes(n: int, seed: int) -> Samples:
    """Three overlapping classes of 10 features."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=random)
    centres = 1.5 * torch.eye(10)[:3]
    return Samples(centres[labels] + 0.7 * torch.randn(n, 10, generator=random), labels)


def trained(samples: Samples, seed: int) -> Objective:
    module = fit_minibatch(
        build(seed), samples, loss=cross_entropy, l2=L2, seed=seed, epochs=EPOCHS, batch_size=BATCH, learning_rate=RATE
    )
    return Objective(module, cross_entropy, L2, dtype=torch.float32)


def outputs(model: Objective, samples: Samples) -> Tensor:
    return output_table(model, model.theta(), samples)


def matched(
    original: Objective, current: Objective, removed: Samples, retained: Samples, held_out: Samples
) -> ModelState:
    """`current`, moved; `original` gives the tables, and the surrogate's start."""
    training = TrainingSettings(Optimiser.ADAM, RATE, BATCH, EPOCHS)
    plan = SurrogatePlan(training, epochs=4)
    state = train_surrogate(original, original.theta(), build(9), retained, plan, seed=0)
    surrogate, teacher = state.within(original), outputs(original, retained)
    data = MatchingData(
        removed,
        removal_targets(
            cross_entropy,
            surrogate_removed=outputs(surrogate, removed),
            surrogate_held_out=outputs(surrogate, held_out),
            original_held_out=outputs(original, held_out),
        ),
        retained,
        teacher,
        hardness(cross_entropy, original=teacher, surrogate=outputs(surrogate, retained)),
    )
    return match_targets(current, current.theta(), data, MatchingPlan(steps=50), seed=0)


@pytest.fixture(scope="module")
def samples() -> Samples:
    """The first 20 of 400 are mislabelled."""
    clean = classes(400, seed=1)
    labels = clean.labels.clone()
    labels[:M] = (labels[:M] + 1) % 3
    return Samples(clean.inputs, labels)


@pytest.fixture(scope="module")
def original(samples: Samples) -> Objective:
    return trained(samples, 0)


@pytest.mark.slow
def test_mislabelled_samples_come_near_what_retraining_says_of_them(samples, original):
    removed, retained = samples.select(torch.arange(M)), samples.select(torch.arange(M, len(samples)))
    state = matched(original, original, removed, retained, classes(300, seed=2))
    model, family, test = state.within(original), Softmax(), classes(1000, seed=3)
    references = [trained(retained, seed).module for seed in (5, 6, 7)]
    with torch.no_grad():
        mean = torch.stack([module(removed.inputs).softmax(1) for module in references]).mean(0).log()
    before, after = (float(family.divergence(mean, outputs(one, removed)).mean()) for one in (original, model))
    assert before > 1.0
    assert after < before / 3
    # The retained samples, and those that nobody has seen, are told as well as before.
    for held, allowed in ((retained, 0.05), (test, 0.02)):
        right = [float((outputs(one, held).argmax(1) == held.labels).double().mean()) for one in (original, model)]
        assert right[1] > right[0] - allowed


@pytest.mark.slow
def test_a_chain_is_matched_to_the_original_for_all_that_is_removed(samples, original):
    held_out = classes(300, seed=2)
    first = matched(
        original, original, samples.select(torch.arange(10)), samples.select(torch.arange(10, 400)), held_out
    )
    current = first.within(original)
    removed, retained = samples.select(torch.arange(M)), samples.select(torch.arange(M, 400))
    model = matched(original, current, removed, retained, held_out).within(original)
    right = [
        float((outputs(one, removed).argmax(1) == removed.labels).double().mean()) for one in (original, current, model)
    ]
    # Half of the removed samples' labels are forgotten by the first removal, the rest by the second.
    assert right[0] > 0.8
    assert right[0] - 0.6 < right[1] < right[0] - 0.2
    assert right[2] < 0.3
