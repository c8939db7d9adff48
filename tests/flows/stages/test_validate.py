"""What a network is judged by: models that never saw the removed samples, whose outputs are made up here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import blobs
import pytest
import torch
from torch import Tensor

from oubli.components.errors import NumericalError
from oubli.components.gate.refusals import RefusalCode
from oubli.components.gate.verdict import Decision
from oubli.components.model.state import ModelState
from oubli.flows.job.facts import AUDIT_OUTPUTS, AuditFacts, Stage, ValidateFacts
from oubli.flows.job.materials import Materials
from oubli.flows.job.measured import parent
from oubli.flows.job.surrogates import BriefTraining
from oubli.flows.stages.audit import audit
from oubli.flows.stages.block import blanket
from oubli.flows.stages.fetch import fetch
from oubli.flows.stages.gradients import gradients
from oubli.flows.stages.register import register
from oubli.flows.stages.update import update
from oubli.flows.stages.validate import validate
from oubli.flows.training.train import train
from oubli.registry.models import tags
from oubli.registry.models.model_registry import ModelRegistry
from oubli.registry.models.weights import save_weights
from oubli.registry.removals.job import RemovalJob
from oubli.registry.removals.outcome import RemovalOutcome, Status
from oubli.registry.removals.removed_ids import removed_before
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("settings", ["local"], indirect=True, scope="module")]

# So large a damping that the update does nothing.
IDLE = {"method": "newton"} if "method" in UnlearnConfig.model_fields else {}
NOTHING = UnlearnConfig.model_validate({**IDLE, "selection": "full", "use_snapshot": "never", "damping": 1e6})

Auditor = Callable[[Tensor, int], Tensor]
"""(the parent's outputs (b, C), the auditor's number) -> the auditor's."""


@pytest.fixture(scope="module")
def allowing(settings: Settings) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUBLI_FACTORY_PREFIXES", "oubli.components.reference,blob_network")
        yield Settings()


@pytest.fixture(scope="module")
def network(allowing: Settings, data_uri: str) -> str:
    """A small network, which knows its training samples well."""
    factory = {"target": "blob_network:build", "kwargs": {"width": 12}}
    training = {"target": f"{blobs.REFERENCE}.training:fit_minibatch", "kwargs": {"epochs": 20}}
    train(allowing, blobs.spec("judged", data_uri, factory=factory, retrain=training, convex=False, snapshot=False))
    return "judged/1"


def never_saw(outputs: Tensor, number: int) -> Tensor:
    """As the parent, but for what another seed would change."""
    noise = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(number))
    return outputs + 0.1 * noise


def thinks_otherwise(outputs: Tensor, number: int) -> Tensor:
    """Sure of another class than the parent."""
    return never_saw(outputs.roll(1, dims=1), number)


def judged(network: str, removals: str, config: UnlearnConfig, on_removed: Auditor) -> tuple[RemovalJob, ValidateFacts]:
    """A removal as far as its verdict, with auditors of which only what they say of the removed samples is given."""
    settings = Settings()
    fetched = fetch(settings, network, [removals], config)
    assert isinstance(fetched, RemovalJob), fetched
    job = fetched.model_copy(update={"audited": True})
    for stage in (gradients, blanket, update):
        stage(settings, job)

    def audit(folder: Path) -> AuditFacts:
        materials = Materials(settings, job)
        known = parent(materials).outputs(materials)
        tables = {}
        for number, name in enumerate(("judge", "witness")):
            tables[f"{name}.removed"] = on_removed(known.removed, number)
            tables[f"{name}.held_out"] = never_saw(known.held_out, number + 2)
        save_weights(tables, folder / AUDIT_OUTPUTS)
        return AuditFacts(seconds=0.0, auditors=2, epochs=1, samples_seen=0)

    job.area.run(Stage.AUDIT, AuditFacts, audit, inputs=[Stage.UPDATE])
    return job, validate(settings, job).facts


def test_doing_nothing_is_refused_where_one_who_never_saw_says_otherwise(allowing: Settings, network: str) -> None:
    removals = blobs.sample_removals(allowing, "known.csv", range(1, 12))
    job, found = judged(network, removals, NOTHING, thinks_otherwise)
    assert found.decision is Decision.REFUSED
    assert {RefusalCode.DISAGREES, RefusalCode.KNOWS_LABELS} <= {reason.code for reason in found.reasons}
    assert not found.nothing_to_forget
    outcome = register(allowing, job)
    assert outcome.status is Status.REFUSED
    assert any("method to 'matching'" in reason for reason in outcome.reasons)
    run = ModelRegistry(allowing).client.get_run(outcome.run_id).data
    assert run.metrics["excess_divergence"] == pytest.approx(run.metrics["excess_divergence_parent"], rel=1e-3)
    assert "accepted" in run.params["verdict_errors"]


def test_where_there_was_nothing_to_forget_the_parents_weights_go_on(allowing: Settings, network: str) -> None:
    removals = blobs.sample_removals(allowing, "unknown.csv", range(13, 24))
    job, found = judged(network, removals, NOTHING, never_saw)
    assert (found.decision, found.reasons, found.nothing_to_forget) == (Decision.NOTHING_TO_FORGET, (), True)
    outcome = register(allowing, job)
    assert (outcome.status, outcome.nothing_to_forget) == (Status.REGISTERED, True)
    assert "There was nothing to forget" in outcome.advice
    registry = ModelRegistry(allowing)
    version = registry.version("judged", outcome.version or "")
    weights, before = registry.weights(version), registry.weights(registry.version("judged", "1"))
    assert all(torch.equal(weights[name], before[name]) for name in before)
    assert version.tags[tags.VERDICT] == "nothing_to_forget"
    assert len(removed_before(version)) == outcome.removed == 10
    assert "Its weights are those of version 1, unchanged: there was nothing to forget" in version.description
    run = registry.client.get_run(version.run_id).data
    assert run.params["verdict"] == "nothing_to_forget"
    assert run.metrics["test_loss"] == run.metrics["test_loss_parent"]
    # The chain goes on from there, and the same removal again finds the version.
    again = fetch(allowing, "judged", [removals], NOTHING)
    assert isinstance(again, RemovalOutcome)
    assert (again.status, again.version) == (Status.ALREADY_DONE, version.version)
    later = blobs.sample_removals(allowing, "later.csv", range(25, 29))
    next_job, _found = judged(f"judged/{version.version}", later, NOTHING, never_saw)
    assert Materials(allowing, next_job).account.removed == outcome.removed + 4


@pytest.mark.parametrize("policy", ["update", "retrain"])
def test_policy_may_ask_for_more(allowing: Settings, network: str, policy: str) -> None:
    removals = blobs.sample_removals(allowing, f"{policy}.csv", range(31, 42))
    config = UnlearnConfig.model_validate({**NOTHING.model_dump(), "nothing_to_forget": policy})
    job, found = judged(network, removals, config, never_saw)
    assert found.nothing_to_forget
    outcome = register(allowing, job)
    if policy == "update":
        assert (found.decision, outcome.status) == (Decision.ACCEPTED, Status.REGISTERED)
        return
    assert (found.decision, outcome.status) == (Decision.NOTHING_TO_FORGET, Status.REFUSED)
    assert outcome.nothing_to_forget
    assert outcome.version is None
    assert "'retrain'" in outcome.reasons[0]


def test_an_auditor_that_diverges_refuses_the_removal(
    allowing: Settings, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(self: BriefTraining, *_: object) -> ModelState:
        raise NumericalError("Weights are NaN or infinite after 3 steps.")

    monkeypatch.setattr(BriefTraining, "run", diverges)
    removals = blobs.sample_removals(allowing, "diverges.csv", range(49, 54))
    fetched = fetch(allowing, network, [removals], NOTHING)
    assert isinstance(fetched, RemovalJob)
    job = fetched.model_copy(update={"audited": True})
    for stage in (gradients, blanket, update):
        stage(allowing, job)
    assert audit(allowing, job).facts.auditors == 0
    (reason,) = validate(allowing, job).facts.reasons
    assert reason.code is RefusalCode.AUDITOR_FAILED
    assert reason.finding == "The auditor 'judge' diverged: Weights are NaN or infinite after 3 steps."
    assert register(allowing, job).status is Status.REFUSED


def test_a_network_that_nobody_judged_is_refused(allowing: Settings, network: str) -> None:
    removals = blobs.sample_removals(allowing, "alone.csv", range(43, 48))
    job = fetch(allowing, network, [removals], NOTHING)
    assert isinstance(job, RemovalJob)
    alone = job.model_copy(update={"audited": False})
    for stage in (gradients, blanket, update):
        stage(allowing, alone)
    found = validate(allowing, alone).facts
    assert [reason.code for reason in found.reasons] == [RefusalCode.NOT_COMPARED]
    assert any(one.startswith("Acceptance:") for one in found.not_checked)
