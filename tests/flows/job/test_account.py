"""What was removed since training: noise, capacity, shares of classes, and what a chain of removals is judged by."""

from __future__ import annotations

import math

import blobs
import numpy as np
import pytest
import torch

from oubli.components.errors import ConfigurationError
from oubli.components.gate.limits import GateLimits
from oubli.flows.job.materials import Materials
from oubli.flows.stages.fetch import fetch
from oubli.flows.training.retrain import retrain
from oubli.flows.training.train import train
from oubli.registry.models.model_registry import ModelRegistry, RegisteredVersion
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import Status
from oubli.registry.removals.unlearn_config import Privacy, UnlearnConfig
from oubli.registry.settings import Settings
from oubli.registry.training.training_record import Sensitivity

L, M, L2, N = 2.0, 1e-6, 1e-2, 200
TARGET = Privacy(epsilon=1.0, delta=1e-5)
# Of 40 test rows, one is more than a point.
NOISY = UnlearnConfig(privacy=TARGET, limits=GateLimits(accuracy_drop=0.1))


# The account is the same on every store: the local one is enough.
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("settings", ["local"], indirect=True, scope="module")]


@pytest.fixture(scope="module")
def registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings)


@pytest.fixture(scope="module")
def bounded(settings: Settings, data_uri: str) -> RegisteredVersion:
    """A model with proven constants, in float64 so that rounding is no distance from the minimum."""
    sensitivity = Sensitivity(lipschitz=L, hessian_lipschitz=M, proven=True)
    return train(settings, blobs.spec("bounded", data_uri, sensitivity=sensitivity, dtype="float64"))


def gamma(removed: int) -> float:
    """Sekhari et al. 2021, by hand."""
    return 2 * M * L**2 * removed**2 / (L2**3 * N**2)


def sigma(removed: int) -> float:
    return gamma(removed) * math.sqrt(2 * math.log(1.25 / TARGET.delta)) / TARGET.epsilon


def job_for(settings: Settings, model: str, numbers: range, config: UnlearnConfig) -> RemovalJob:
    removals = blobs.sample_removals(settings, f"{numbers.start}-{numbers.stop}.csv", numbers)
    job = fetch(settings, model, [removals], config)
    assert isinstance(job, RemovalJob)
    return job


def test_noise_is_added_as_the_theorem_asks(
    settings: Settings, registry: ModelRegistry, bounded: RegisteredVersion
) -> None:
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    noisy = blobs.remove(settings, "bounded/1", [removals], NOISY)
    exact = blobs.remove(settings, "bounded/1", [removals], NOISY.model_copy(update={"privacy": None}))
    assert (noisy.status, exact.status) == (Status.REGISTERED, Status.REGISTERED)
    run = registry.client.get_run(noisy.run_id).data
    assert run.params["privacy"] == "(1, 1e-05) is a guarantee: every condition of the theorem holds."
    assert run.metrics["noise_sigma"] == pytest.approx(sigma(3))
    assert run.metrics["capacity_gamma"] == pytest.approx(gamma(3))
    assert run.metrics["capacity_remaining"] > 0
    weights = [registry.weights(registry.version("bounded", one.version or "")) for one in (noisy, exact)]
    noise = torch.cat([(weights[0][name] - weights[1][name]).flatten() for name in weights[0]])
    # 21 draws: their root mean square is within a factor of two of sigma but for one in a million.
    assert 0.5 * sigma(3) < float(noise.square().mean().sqrt()) < 2 * sigma(3)
    assert "is a guarantee" in registry.version("bounded", noisy.version or "").description
    # Judged without the noise, which alone leaves more of a gradient than the removal did.
    assert run.metrics["retained_gradient_norm"] > 1e-3


def test_without_a_target_there_is_no_noise_and_no_promise(
    settings: Settings, registry: ModelRegistry, bounded: RegisteredVersion
) -> None:
    removals = blobs.sample_removals(settings, "three-others.csv", range(4, 7))
    outcome = blobs.remove(settings, "bounded/1", [removals], NOISY.model_copy(update={"privacy": None}))
    run = registry.client.get_run(outcome.run_id).data
    assert run.params["privacy"] == "none"
    assert not {"noise_sigma", "capacity_gamma", "capacity_remaining"} & set(run.metrics)


def test_noise_is_the_same_in_every_retry_and_not_known_elsewhere(
    settings: Settings, bounded: RegisteredVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Materials(settings, job_for(settings, "bounded/1", range(7, 9), NOISY)) for _ in range(2))
    theta = first.theta
    noisy = first.account.noised(theta, theta)[0]
    assert not torch.equal(noisy, theta)
    assert torch.equal(noisy, second.account.noised(theta, theta)[0])
    # Of another store, whose secret is another, so is the noise.
    monkeypatch.setattr("oubli.flows.job.account.store_seed", lambda _root, _lines: int("f" * 15, 16))
    assert not torch.equal(noisy, first.account.noised(theta, theta)[0])


def test_spent_capacity_is_refused_with_its_figures(
    settings: Settings, registry: ModelRegistry, bounded: RegisteredVersion
) -> None:
    removals = blobs.sample_removals(settings, "four.csv", range(13, 17))
    strict = Privacy(epsilon=TARGET.epsilon, delta=TARGET.delta, max_noise=1e-6)
    outcome = blobs.remove(settings, "bounded/1", [removals], NOISY.model_copy(update={"privacy": strict}))
    assert outcome.status is Status.REFUSED
    assert any("4 samples were removed since training; the capacity is 0" in reason for reason in outcome.reasons)
    run = registry.client.get_run(outcome.run_id).data
    assert run.metrics["noise_sigma"] == 0
    assert "is a stated target, not a guarantee: Noise of 0 was added" in run.params["privacy"]


def test_a_target_needs_constants(settings: Settings, convex: RegisteredVersion) -> None:
    removals = blobs.sample_removals(settings, "three.csv", range(1, 4))
    with pytest.raises(ConfigurationError, match="no sensitivity") as caught:
        fetch(settings, "convex/1", [removals], NOISY)
    assert "sensitivity" in caught.value.remedy


def test_a_chain_is_accounted_for_as_one_removal(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    sensitivity = Sensitivity(lipschitz=L, hessian_lipschitz=M)
    train(settings, blobs.spec("chain", data_uri, sensitivity=sensitivity))
    plain = UnlearnConfig(limits=GateLimits(accuracy_drop=0.1))
    first = blobs.remove(settings, "chain", [blobs.sample_removals(settings, "a.csv", range(1, 6))], plain)
    assert first.version == "2"
    account = Materials(settings, job_for(settings, "chain", range(7, 10), NOISY)).account
    assert account.origin == registry.version("chain", "1")
    assert (account.removed, account.trained_on) == (8, 200)
    # Retrained without them, they were never in: the account starts anew, on fewer samples.
    retrained = retrain(settings, "chain", []).version
    anew = Materials(settings, job_for(settings, f"chain/{retrained.version}", range(7, 10), NOISY)).account
    assert anew.origin == retrained
    assert (anew.removed, anew.trained_on) == (3, 195)


def test_with_the_origin_deleted_everything_counts(settings: Settings, registry: ModelRegistry, data_uri: str) -> None:
    train(settings, blobs.spec("orphan", data_uri))
    plain = UnlearnConfig(limits=GateLimits(accuracy_drop=0.1))
    blobs.remove(settings, "orphan", [blobs.sample_removals(settings, "a.csv", range(1, 6))], plain)
    registry.client.delete_registered_model_alias("orphan", "champion")
    registry.client.delete_model_version("orphan", "1")
    account = Materials(settings, job_for(settings, "orphan/2", range(7, 10), plain)).account
    assert account.origin is None
    assert (account.removed, account.trained_on) == (8, 200)


def test_shares_of_classes_count_all_versions(settings: Settings, data_uri: str) -> None:
    train(settings, blobs.spec("shares", data_uri))
    plain = UnlearnConfig(limits=GateLimits(accuracy_drop=0.1))
    blobs.remove(settings, "shares", [blobs.sample_removals(settings, "a.csv", range(1, 6))], plain)
    shares = Materials(settings, job_for(settings, "shares", range(7, 12), plain)).account.class_shares
    labels = np.array(blobs.table().column("label").to_pylist())
    rows = np.arange(blobs.ROWS)
    trained, gone = rows % blobs.TEST_EVERY > 0, (rows > 0) & (rows < 12) & (rows != 6)
    slow = {int(each): (labels[gone] == each).sum() / (labels[trained] == each).sum() for each in set(labels[gone])}
    assert shares == pytest.approx(slow)
