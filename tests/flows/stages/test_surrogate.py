"""The surrogate: killed and gone on with, it ends with the same bits; a training that diverges is a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import memorised
import pytest
import torch
from torch import Tensor

from oubli.flows.job import surrogates
from oubli.flows.job.facts import SURROGATE, UPDATE_FACTS, Stage, SurrogateFacts, Unsolved
from oubli.flows.stages.block import blanket
from oubli.flows.stages.fetch import fetch
from oubli.flows.stages.gradients import gradients
from oubli.flows.stages.surrogate import surrogate
from oubli.flows.stages.update import update
from oubli.flows.training.train import train
from oubli.registry.models.weights import load_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.unlearn_config import UnlearnConfig, Way
from oubli.registry.removals.work_area import WorkArea
from oubli.registry.settings import Settings
from oubli.registry.storage.stores import store_for

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("settings", ["local"], indirect=True, scope="module")]


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def allowing(settings: Settings) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUBLI_FACTORY_PREFIXES", memorised.PREFIXES)
        yield Settings()


@pytest.fixture(scope="module")
def new_job(allowing: Settings) -> Callable[[int], RemovalJob]:
    """A job on one trained model, another one for each seed."""
    train(allowing, memorised.spec(allowing, "surrogates"))
    removals = memorised.removals(allowing, range(10))

    def make(seed: int) -> RemovalJob:
        config = UnlearnConfig(method=Way.MATCHING, surrogate_epochs=3, matching_steps=10, perturbations=20, seed=seed)
        job = fetch(allowing, "surrogates", [removals], config)
        assert isinstance(job, RemovalJob)
        return job

    return make


def copied(job: RemovalJob) -> RemovalJob:
    """The same job with an empty work area, but for what `fetch` wrote."""
    other = job.model_copy(update={"key": f"{job.key}-again"})
    store = store_for(job.area.root)
    for entry in store.list(f"{job.area.root}/{Stage.FETCH}"):
        store.write(f"{other.area.root}/{Stage.FETCH}/{entry.uri.rpartition('/')[2]}", store.read(entry.uri))
    return other


def written(job: RemovalJob) -> dict[str, Tensor]:
    with job.area.open(Stage.SURROGATE, SURROGATE) as path:
        return load_weights(path)


def kept(job: RemovalJob, stage: Stage) -> list[str]:
    return [entry.uri for entry in store_for(job.area.root).list(f"{job.area.root}/{stage}/checkpoints")]


def kill_at_the_first_checkpoint(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Run what is killed once its first checkpoint is kept; every look at the clock keeps one from then on."""
    monkeypatch.setattr(surrogates, "KEEP_EVERY_S", 0.0)
    keep = WorkArea.keep

    def keep_once(area: WorkArea, stage: str, name: str, path: Path) -> None:
        keep(area, stage, name, path)
        raise Killed

    with monkeypatch.context() as once:
        once.setattr(WorkArea, "keep", keep_once)
        with pytest.raises(Killed):
            work()


def test_a_killed_surrogate_goes_on_to_the_same_bits(
    allowing: Settings, new_job: Callable[[int], RemovalJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(0)
    undisturbed = copied(job)
    surrogate(allowing, undisturbed)
    assert not kept(undisturbed, Stage.SURROGATE)  # it took too little time for any

    kill_at_the_first_checkpoint(monkeypatch, lambda: surrogate(allowing, job))
    (uri,) = kept(job, Stage.SURROGATE)

    epochs: list[float] = []
    surrogate(allowing, job, epochs.append)
    assert epochs == pytest.approx([2 / 3, 1.0])
    one, other = written(job), written(undisturbed)
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not store_for(uri).exists(uri)


def test_steps_of_matching_go_on_to_the_same_bits(
    allowing: Settings, new_job: Callable[[int], RemovalJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(1)
    undisturbed = copied(job)
    for each in (job, undisturbed):
        for stage in (gradients, blanket, surrogate):
            stage(allowing, each)
    update(allowing, undisturbed)
    kill_at_the_first_checkpoint(monkeypatch, lambda: update(allowing, job))
    assert len(kept(job, Stage.UPDATE)) == 1
    files = [stage.files for stage in (update(allowing, job), update(allowing, undisturbed))]
    assert files[0] == files[1]


def test_a_surrogate_that_diverges_is_refused_and_not_raised(
    allowing: Settings, new_job: Callable[[int], RemovalJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(2)
    plan = surrogates.surrogate_plan
    monkeypatch.setattr(
        "oubli.flows.stages.surrogate.surrogate_plan",
        lambda settings, config: replace(plan(settings, config), rate_factor=1e30),
    )
    for stage in (gradients, blanket, surrogate):
        stage(allowing, job)
    facts = job.area.require(Stage.SURROGATE, SurrogateFacts).facts
    assert "NaN or infinite" in facts.failed
    update(allowing, job)
    found = job.area.require(Stage.UPDATE, UPDATE_FACTS).facts
    assert isinstance(found, Unsolved)
    assert (found.curvature_words, found.detail) == ("none (matching)", f"The surrogate: {facts.failed}")
