"""What is left open in a configuration, and what a model makes of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from records import training_record

from oubli.components.blocks.choosing import BlockChoice
from oubli.components.blocks.perturbation import GaussianPerturbation, TokenPerturbation
from oubli.components.curvature.kinds import CurvatureKind
from oubli.flows.job.choices import Choices
from oubli.registry.removals.unlearn_config import UnlearnConfig
from oubli.registry.training.training_record import (
    TokensDecoder,
)


def choices(*, convex: bool = False, decoder: Any = None, **config: Any) -> Choices:
    record = training_record(convex=convex, **({} if decoder is None else {"decoder": decoder}))
    return Choices(UnlearnConfig.model_validate(config), record)


def test_what_a_convex_model_gets() -> None:
    found = choices(convex=True)
    assert (found.selection, found.curvature, found.steps) == (BlockChoice.FULL, CurvatureKind.GGN, 2)
    assert not found.may_use_snapshot
    assert found.damping().words == "none (convex)"


def test_what_a_network_gets() -> None:
    found = choices()
    assert (found.selection, found.curvature, found.steps) == (BlockChoice.L_FOCI, CurvatureKind.GGN, 1)
    assert found.may_use_snapshot
    assert found.damping().words == "relative to the mean curvature"


@pytest.mark.parametrize("convex", [True, False])
def test_what_is_asked_for_is_done(convex: bool) -> None:
    found = choices(convex=convex, selection="random", block_size=5, curvature="kfac", steps=3, damping=0.25)
    assert (found.selection, found.curvature, found.steps) == (BlockChoice.RANDOM, CurvatureKind.KFAC, 3)
    assert found.damping().words == "0.25, as configured"


@pytest.mark.parametrize(
    ("config", "goes"),
    [
        ({}, True),
        ({"damping": 0.0}, True),
        ({"use_snapshot": "never"}, True),
        ({"use_snapshot": "always"}, False),
        # Whoever names one of these means single steps.
        ({"steps": 2}, False),
        ({"damping": 0.1}, False),
        ({"curvature": "ggn"}, False),
        ({"curvature_samples": 10}, False),
        ({"order": "one_at_a_time"}, False),
    ],
)
def test_when_steps_go_on_to_the_minimiser(config: dict[str, Any], goes: bool) -> None:
    assert choices(convex=True, **config).to_minimiser is goes
    assert not choices(**config).to_minimiser


@pytest.mark.parametrize(
    ("config", "may"),
    [
        ({}, True),
        ({"use_snapshot": "never"}, False),
        ({"use_snapshot": "always"}, True),
        ({"steps": 2}, False),
        ({"order": "one_at_a_time"}, False),
        # Whoever names a curvature, or the samples for one, means that one.
        ({"curvature": "ggn"}, False),
        ({"curvature_samples": 10}, False),
    ],
)
def test_when_a_snapshot_is_taken(config: dict[str, Any], may: bool) -> None:
    assert choices(**config).may_use_snapshot is may


def test_a_convex_model_takes_one_step_from_a_snapshot_that_it_must_take() -> None:
    found = choices(convex=True, use_snapshot="always")
    assert found.may_use_snapshot
    assert found.steps == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_snapshot": "always", "steps": 2}, "a snapshot serves one step, but steps is 2"),
        ({"use_snapshot": "always", "curvature": "kfac"}, "holds its own curvature, but curvature is 'kfac'"),
        ({"use_snapshot": "always", "order": "one_at_a_time"}, "exclude each other"),
        ({"order": "one_at_a_time", "curvature_samples": 5}, "leave curvature_samples out"),
        ({"selection": "random"}, "selection 'random' needs a block_size"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        choices(**config)


def test_how_inputs_are_perturbed() -> None:
    assert choices(perturbation_sigma=0.3).perturbation == GaussianPerturbation(0.3)
    words = choices(decoder=TokensDecoder(length=4, vocabulary=9, padding=8, special=(0, 1)), token_replacements=2)
    found = words.perturbation
    assert isinstance(found, TokenPerturbation)
    assert found.replacements == 2
    assert (found.vocabulary.size, found.vocabulary.special, found.vocabulary.padding) == (9, frozenset({0, 1}), 8)
