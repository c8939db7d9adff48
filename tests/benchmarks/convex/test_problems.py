"""The convex problems, and a removal from one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.convex.__main__ import NEAR, case
from benchmarks.convex.problems import Name, _encoder, features, problem
from benchmarks.unlearning.data import Data, load
from oubli.components.curvature.factors import take_factor
from oubli.components.model.gradients import RemovedGradient
from oubli.components.removal.convex import convex_removal


def test_a_heads_samples_are_what_it_was_given(tmp_path: Path) -> None:
    texts = load(Data.SYNTHETIC_TEXT, tmp_path, 60)
    network = _encoder(texts)
    found = features(texts, network, l2=1e-3, epochs=1)
    assert torch.equal(found.labels, texts.train.labels)
    with torch.no_grad():
        head = network.double().get_submodule("head")
        torch.testing.assert_close(head(found.inputs.double()), network.eval()(texts.train.inputs))


@pytest.mark.slow
def test_a_removal_from_digits_is_as_near_as_it_says(tmp_path: Path) -> None:
    convex = problem(Name.DIGITS, tmp_path)
    start = convex.objective.theta()
    factor = take_factor(convex.objective, start, convex.samples)
    assert factor is not None
    nothing = RemovedGradient(torch.zeros_like(start), 1)
    theta = convex_removal(convex.objective, start, convex.samples, nothing, factor).theta
    found = case(convex, theta, convex.removals()["m = 10"], factor)
    assert found["m"] == 10
    assert float(str(found["distance"])) <= NEAR
    assert float(str(found["distance"])) <= float(str(found["bound"]))
