"""A run's params: the same names whatever made the model, so that MLflow lines them up."""

from __future__ import annotations

import pytest
from records import SHA, training_record

from oubli.registry.models.lineage import Lineage, Method

# What MLflow takes for the value of a param, in characters.
MLFLOW_LIMIT = 6000

RECORD = training_record()
LINEAGES = {
    Method.TRAINED: Lineage(method=Method.TRAINED, verdict="trained"),
    Method.UNLEARNED: Lineage(
        method=Method.UNLEARNED,
        verdict="accepted",
        parent_version="3",
        request_ids=("req-1", "req-2"),
        removed=5,
        removed_in_all=12,
        removal_digest="cd" * 32,
        config_digest="ef" * 32,
        selection="l_foci",
        curvature="ggn",
        damping="0.1 mean diagonals",
        privacy="none",
    ),
    Method.RETRAINED: Lineage(method=Method.RETRAINED, verdict="retrained", parent_version="3", removed_in_all=12),
    Method.RETRAINED_WARM: Lineage(method=Method.RETRAINED_WARM, verdict="retrained", parent_version="3"),
}


def test_every_method_has_the_same_params() -> None:
    assert set(LINEAGES) == set(Method)
    names = {method: set(lineage.params(RECORD)) for method, lineage in LINEAGES.items()}
    assert len(set(map(frozenset, names.values()))) == 1


def test_params_are_short_texts_and_never_empty() -> None:
    # MLflow's page shows an empty param as if it were missing.
    for lineage in LINEAGES.values():
        for name, value in lineage.params(RECORD).items():
            assert isinstance(value, str), name
            assert 0 < len(value) < MLFLOW_LIMIT, name


def test_params_of_a_removal() -> None:
    assert LINEAGES[Method.UNLEARNED].params(RECORD) == {
        "method": "unlearned",
        "verdict": "accepted",
        "parent_version": "3",
        "request_ids": "req-1, req-2",
        "removed": "5",
        "removed_in_all": "12",
        "removal_set_digest": "cd" * 32,
        "config_digest": "ef" * 32,
        "selection": "l_foci",
        "curvature": "ggn",
        "damping": "0.1 mean diagonals",
        "verdict_errors": "none",
        "privacy": "none",
        "dataset_sha256": SHA,
        "training_samples": "200",
        "loss": "cross_entropy",
        "l2": "0.001",
        "seed": "7",
        "convex": "true",
        "trained_parameters": "all",
        "factory": "oubli.components.reference.models:logistic_regression",
    }


def test_params_of_a_training_name_no_parent() -> None:
    params = LINEAGES[Method.TRAINED].params(RECORD)
    assert {params[name] for name in ("parent_version", "request_ids", "removal_set_digest", "config_digest")} == {
        "none"
    }
    assert (params["removed"], params["removed_in_all"]) == ("0", "0")


def test_a_loss_of_ones_own_is_named() -> None:
    record = RECORD.model_copy(update={"loss": "my.losses:focal"})
    assert LINEAGES[Method.TRAINED].params(record)["loss"] == "my.losses:focal"


def test_what_was_trained_is_named() -> None:
    record = RECORD.model_copy(update={"trained": ("encoder.norm", "head")})
    assert LINEAGES[Method.TRAINED].params(record)["trained_parameters"] == "encoder.norm, head"


@pytest.mark.parametrize(("count", "listed"), [(1, True), (40, True), (1000, False)])
def test_many_requests_are_counted_instead_of_listed(count: int, listed: bool) -> None:
    requests = tuple(f"request-{number}" for number in range(count))
    shown = Lineage(Method.UNLEARNED, "accepted", request_ids=requests).params(RECORD)["request_ids"]
    assert len(shown) <= 500
    if listed:
        assert shown == ", ".join(requests)
    else:
        assert shown.startswith(f"{count} requests")
        assert "oubli/evidence.json" in shown
