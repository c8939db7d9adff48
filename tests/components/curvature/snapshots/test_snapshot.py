from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from oracles import dense_gauss_newton
from torch import Tensor, nn

from oubli.components.curvature.fisher import SampledFisher
from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.curvature.kfac import Kronecker
from oubli.components.curvature.secant import Secant
from oubli.components.curvature.snapshots.dense import DenseSnapshot
from oubli.components.curvature.snapshots.kronecker_factors import KroneckerSnapshot
from oubli.components.curvature.snapshots.low_rank import LowRankSnapshot
from oubli.components.curvature.snapshots.snapshot import CurvatureSnapshot, SnapshotForm
from oubli.components.curvature.snapshots.taking import choose_form, restore_snapshot, take_snapshot
from oubli.components.errors import ConfigurationError, IndefiniteCurvature
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import build_seeded

M = 5

EXACT = (SnapshotForm.DENSE, SnapshotForm.KRONECKER)
"""The forms whose subtraction leaves what a fresh pass over the retained samples gives."""


def restricted(objective: Objective, block: Tensor | None = None) -> Restriction:
    return Restriction(objective, objective.theta(), block)


def parted(samples: Samples) -> tuple[Samples, Samples]:
    """M removed samples from the middle, and the others."""
    removed = torch.arange(3, 3 + M) % len(samples)
    rest = torch.tensor([one for one in range(len(samples)) if one not in removed.tolist()])
    return samples.select(removed), samples.select(rest)


def taken(objective: Objective, samples: Samples, form: SnapshotForm, **options: object) -> CurvatureSnapshot:
    return take_snapshot(objective, objective.theta(), samples, form=form, **options)


@pytest.mark.parametrize("form", EXACT)
@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("names", [("network", "images"), ("token", "tokens"), ("linear", "classes")])
def test_without_is_the_curvature_over_the_retained_samples(request, form, seed, names):
    objective, samples = request.getfixturevalue(f"{names[0]}_objective"), request.getfixturevalue(names[1])
    removed, retained = parted(samples)
    snapshot = taken(objective, samples, form, seed=seed)
    assert (snapshot.n, snapshot.form) == (len(samples), form)
    found = snapshot.without(restricted(objective), removed)
    if form is SnapshotForm.DENSE:
        expected = GaussNewton(restricted(objective), retained).dense()
    else:
        expected = Kronecker(restricted(objective), retained, seed=seed).dense()
    torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-12)
    # It is not the curvature over all of them.
    everyone = Kronecker(restricted(objective), samples, seed=seed).dense()
    assert float((found.dense() - everyone).norm()) > 1e-3 * float(everyone.norm())


@pytest.mark.parametrize("form", list(SnapshotForm))
def test_the_gradient_over_the_retained_samples_follows(network_objective, images, form):
    removed, retained = parted(images)
    theta = network_objective.theta()
    snapshot = taken(network_objective, images, form, budget_bytes=2000)
    left = snapshot.gradient - gradient_sum(network_objective, theta, removed)
    torch.testing.assert_close(left, gradient_sum(network_objective, theta, retained), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("form", EXACT)
def test_a_block_of_it(network_objective, images, form):
    removed, retained = parted(images)
    space = network_objective.space
    block = torch.cat([torch.arange(9, 18), torch.tensor([28]), torch.tensor([31])])  # a filter, its bias, one affine
    assert space.range_of("0.bias").start == 27
    found = taken(network_objective, images, form).without(restricted(network_objective, block), removed)
    part = restricted(network_objective, block)
    expected = (GaussNewton if form is SnapshotForm.DENSE else Kronecker)(part, retained).dense()
    torch.testing.assert_close(found.dense(), expected, rtol=1e-10, atol=1e-13)
    b = torch.ones(len(block), dtype=torch.float64)
    solved = found.system().solve(b, 0.1).x
    torch.testing.assert_close(expected @ solved + 0.1 * solved, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("form", list(SnapshotForm))
def test_it_goes_through_tensors_and_json(network_objective, images, form):
    removed, _ = parted(images)
    theta = network_objective.theta()
    secant = Secant(torch.ones_like(theta), theta)
    snapshot = dataclasses.replace(taken(network_objective, images, form, seed=3), secant=secant)
    tensors = {name: tensor.clone() for name, tensor in snapshot.tensors().items()}
    restored = restore_snapshot(tensors, json.loads(json.dumps(snapshot.facts())))
    assert (restored.n, restored.form, restored.seed) == (snapshot.n, snapshot.form, snapshot.seed)
    assert torch.equal(restored.gradient, snapshot.gradient)
    assert restored.secant is not None
    assert torch.equal(restored.secant.change, theta)
    before = snapshot.without(restricted(network_objective), removed).dense()
    assert torch.equal(restored.without(restricted(network_objective), removed).dense(), before)
    facts = snapshot.facts()
    with pytest.raises(ConfigurationError, match="no curvature snapshot"):
        restore_snapshot({"gradient": theta}, facts)
    with pytest.raises(ConfigurationError, match="no curvature snapshot"):
        restore_snapshot(tensors, {**facts, "n": "many"})


@pytest.mark.parametrize("form", EXACT)
def test_removals_one_after_another(network_objective, images, form):
    theta = network_objective.theta()
    first, second = images.select(torch.arange(4)), images.select(torch.arange(4, 9))
    snapshot = taken(network_objective, images, form)
    at_once = snapshot.without(restricted(network_objective), images.select(torch.arange(9)))
    advanced = snapshot.advance(network_objective, theta, first)
    assert advanced.n == 16
    later = advanced.without(restricted(network_objective), second)
    torch.testing.assert_close(later.dense(), at_once.dense(), rtol=1e-9, atol=1e-12)
    kept = gradient_sum(network_objective, theta, images.select(torch.arange(4, 20)))
    torch.testing.assert_close(advanced.gradient, kept, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("form", EXACT)
def test_samples_that_it_was_not_taken_over_are_noticed(network_objective, images, form):
    strangers = Samples(30 * images.inputs[:6], images.labels[:6])
    snapshot = taken(network_objective, images, form, seed=None)
    with pytest.raises(IndefiniteCurvature):
        snapshot.without(restricted(network_objective), strangers).system().solve(network_objective.theta(), 1e-6)


@pytest.mark.parametrize("form", list(SnapshotForm))
def test_not_all_can_go(linear_objective, classes, form):
    snapshot = taken(linear_objective, classes, form)
    with pytest.raises(ConfigurationError, match="40 samples cannot be taken from a snapshot of 40"):
        snapshot.without(restricted(linear_objective), classes)
    with pytest.raises(ConfigurationError, match="0 samples cannot"):
        snapshot.advance(linear_objective, linear_objective.theta(), classes.select(torch.arange(0)))


def test_an_objective_that_it_was_not_taken_of_is_named(network, images):
    head = Objective(network, cross_entropy, 0.0, trained=["6"])
    snapshot = taken(head, images, SnapshotForm.KRONECKER)
    whole = Objective(network, cross_entropy, 0.0)
    with pytest.raises(ConfigurationError, match=r"The snapshot lacks 0, 1\.bias, 1\.weight"):
        snapshot.without(restricted(whole), images.select(torch.arange(2)))


def test_small_models_are_kept_whole_and_large_ones_are_not(linear_objective, classes, monkeypatch):
    module = "oubli.components.curvature.snapshots.taking"
    assert choose_form(linear_objective, classes) is SnapshotForm.DENSE
    monkeypatch.setattr(f"{module}.DENSE_BYTES", 15 * 15 * 8 - 1)
    assert choose_form(linear_objective, classes) is SnapshotForm.LOW_RANK
    assert isinstance(taken(linear_objective, classes, None), LowRankSnapshot)
    monkeypatch.setattr(f"{module}.LOW_RANK_BYTES", 10)
    assert choose_form(linear_objective, classes) is SnapshotForm.KRONECKER
    assert isinstance(taken(linear_objective, classes, None), KroneckerSnapshot)
    monkeypatch.undo()
    monkeypatch.setattr(f"{module}.DENSE_FLOPS", 10.0)
    assert choose_form(linear_objective, classes) is SnapshotForm.LOW_RANK
    nameless = Objective(nn.Linear(4, 3), lambda outputs, labels: outputs.square().sum(1), 0.0)
    assert choose_form(nameless, classes) is SnapshotForm.KRONECKER


@pytest.mark.parametrize("block", [None, torch.tensor([1, 9, 30])])
def test_leading_directions_of_every_sample_are_the_sampled_fisher(network_objective, images, block):
    removed, retained = parted(images)
    snapshot = taken(network_objective, images, SnapshotForm.LOW_RANK, seed=4)
    part = restricted(network_objective, block)
    expected = SampledFisher(part, retained, seed=4).dense()
    torch.testing.assert_close(snapshot.without(part, removed).dense(), expected, rtol=1e-8, atol=1e-11)
    advanced = snapshot.advance(network_objective, network_objective.theta(), removed.select(torch.arange(2)))
    later = advanced.without(part, removed.select(torch.arange(2, M)))
    torch.testing.assert_close(later.dense(), expected, rtol=1e-7, atol=1e-10)


def test_leading_directions_of_another_objective_are_noticed(network, images):
    head = Objective(network, cross_entropy, 0.0, trained=["6"])
    snapshot = taken(head, images, SnapshotForm.LOW_RANK)
    with pytest.raises(ConfigurationError, match="not of 75 parameters"):
        snapshot.without(restricted(Objective(network, cross_entropy, 0.0)), images.select(torch.arange(2)))


def test_a_loss_from_elsewhere_takes_all_columns(network, images):
    objective = Objective(network, lambda outputs, labels: outputs.square().sum(1), 0.0)
    snapshot = taken(objective, images, SnapshotForm.KRONECKER, seed=4)
    assert snapshot.seed is None
    removed, retained = parted(images)
    expected = Kronecker(restricted(objective), retained, seed=None).dense()
    torch.testing.assert_close(
        snapshot.without(restricted(objective), removed).dense(), expected, rtol=1e-10, atol=1e-12
    )


def test_progress_rises_to_one(network_objective, images):
    for form in SnapshotForm:
        told: list[float] = []
        taken(network_objective, images, form, budget_bytes=2000, on_progress=told.append)
        assert told == sorted(told)
        assert told[-1] == 1.0


@pytest.mark.parametrize("form", list(SnapshotForm))
def test_the_same_seed_gives_the_same_bits(network_objective, images, form):
    first, second = (taken(network_objective, images, form, seed=2).tensors() for _ in range(2))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])


def test_in_single_precision_it_moves_to_the_objective(network, images):
    narrow = Objective(network, cross_entropy, 0.0, dtype=torch.float32)
    removed, retained = parted(images)
    for form in EXACT:
        snapshot = taken(Objective(network, cross_entropy, 0.0), images, form).to(narrow)
        assert {tensor.dtype for tensor in snapshot.tensors().values()} == {torch.float32}
        found = snapshot.without(restricted(narrow), removed)
        wide = Objective(network, cross_entropy, 0.0)
        kind = GaussNewton if form is SnapshotForm.DENSE else Kronecker
        expected = kind(restricted(wide), retained).dense()
        torch.testing.assert_close(found.dense().double(), expected, rtol=1e-3, atol=1e-5)


def test_a_dense_snapshot_of_a_head_is_the_definition(images):
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    objective = Objective(module, cross_entropy, 0.0)
    snapshot = DenseSnapshot.take(objective, objective.theta(), images)
    expected = dense_gauss_newton(objective, images) * len(images)
    torch.testing.assert_close(snapshot.matrix, expected, rtol=1e-10, atol=1e-12)


def test_a_share_of_the_samples_is_subtracted_as_it_was_added(network_objective, images):
    removed, retained = parted(images)
    snapshot = taken(network_objective, images, SnapshotForm.KRONECKER, share=0.5, budget_bytes=4000)
    assert isinstance(snapshot, KroneckerSnapshot)
    assert 4 <= snapshot.factors.count <= 16
    again = taken(network_objective, retained, SnapshotForm.KRONECKER, share=0.5)
    restored = restore_snapshot(snapshot.tensors(), json.loads(json.dumps(snapshot.facts())))
    advanced = restored.advance(network_objective, network_objective.theta(), removed)
    assert advanced.factors.count == again.factors.count < snapshot.factors.count
    for name, tensor in again.tensors().items():
        torch.testing.assert_close(advanced.tensors()[name], tensor, rtol=1e-10, atol=1e-12)
    # The gradient is of all samples.
    everyone = gradient_sum(network_objective, network_objective.theta(), images)
    torch.testing.assert_close(snapshot.gradient, everyone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_what_is_no_share_is_refused(network_objective, images, share):
    with pytest.raises(ConfigurationError, match="share is"):
        taken(network_objective, images, SnapshotForm.KRONECKER, share=share)
    with pytest.raises(ConfigurationError, match="No sample is left"):
        taken(network_objective, images, SnapshotForm.KRONECKER, share=1e-9)


STORED_FACTS = {"n": 20, "seed": None, "share": 1.0, "count": 0, "rows": {}, "diagonal": [], "secant": False}
"""Of a stored file, by the names that files have had from the first version on."""


def test_stored_names_of_a_dense_snapshot(network_objective, images):
    removed, retained = parted(images)
    theta = network_objective.theta()
    tensors = {
        "gradient": gradient_sum(network_objective, theta, images),
        "matrix": dense_gauss_newton(network_objective, images) * 20,
        "secant.step": theta,
        "secant.change": 2 * theta,
    }
    kept = restore_snapshot(tensors, {**STORED_FACTS, "form": "dense", "secant": True})
    found = kept.without(restricted(network_objective), removed).dense()
    torch.testing.assert_close(found, dense_gauss_newton(network_objective, retained), rtol=1e-9, atol=1e-12)
    assert torch.equal(kept.gradient, tensors["gradient"])
    assert torch.equal(kept.secant.change, 2 * theta)
    assert kept.facts() == {**STORED_FACTS, "form": "dense", "secant": True}
    assert list(kept.tensors()) == list(tensors)


def test_stored_names_of_a_low_rank_snapshot(network_objective, images):
    removed, retained = parted(images)
    fisher = SampledFisher(restricted(network_objective), images, seed=6).dense()
    values, vectors = torch.linalg.eigh(fisher)
    theta = network_objective.theta()
    tensors = {
        "gradient": gradient_sum(network_objective, theta, images),
        "directions.basis": vectors.T,
        "directions.values": values,
    }
    facts = {**STORED_FACTS, "form": "low_rank", "seed": 6}
    kept = restore_snapshot(tensors, facts)
    expected = SampledFisher(restricted(network_objective), retained, seed=6).dense()
    found = kept.without(restricted(network_objective), removed).dense()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)
    assert kept.facts() == facts
    assert list(kept.tensors()) == list(tensors)


def test_stored_names_of_a_kronecker_snapshot(images):
    """A layer without bias, and an affine with its diagonal."""
    module = build_seeded(lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 3, bias=False)), 2)
    objective = Objective(module, lambda outputs, labels: outputs.square().sum(1), 0.0)
    removed, retained = parted(images)
    theta = objective.theta()
    normal = nn.functional.layer_norm(images.inputs.flatten(1), (16,))
    weight = objective.space.unflatten(theta)["2.weight"]
    # The loss's Hessian in the outputs is 2 I: with its roots sqrt(2) e_c, g is sqrt(2) times a row of the weight.
    to_affine = 2 * weight.square().sum(0)
    tensors = {
        "gradient": gradient_sum(objective, theta, images),
        "layer.2.inputs": normal.T @ normal,
        "layer.2.outputs": 2 * 20 * torch.eye(3, dtype=torch.float64),
        "diagonal.1.weight": (normal.square() * to_affine).sum(0),
        "diagonal.1.bias": 20 * to_affine,
    }
    facts = {
        **STORED_FACTS,
        "form": "kronecker",
        "count": 20,
        "rows": {"2": 20},
        "diagonal": ["1.weight", "1.bias"],
    }
    kept = restore_snapshot(tensors, facts)
    expected = Kronecker(restricted(objective), retained, seed=None).dense()
    found = kept.without(restricted(objective), removed).dense()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert kept.facts() == facts
    assert list(kept.tensors()) == list(tensors)
