from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oubli.components.blocks.perturbation import (
    GaussianPerturbation,
    Perturbation,
    TokenPerturbation,
    TokenVocabulary,
    gaussian_copies,
    replaced_tokens,
)
from oubli.components.errors import ConfigurationError

VOCABULARY = TokenVocabulary(12, frozenset({1, 2, 7}), padding=0)
ORDINARY = {3, 4, 5, 6, 8, 9, 10, 11}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(seed=st.integers(0, 2**63 - 1), shape=st.lists(st.integers(1, 4), max_size=3))
def test_copies_are_a_function_of_the_seed(seed, shape):
    sample = torch.ones(shape, dtype=torch.float64)
    first = gaussian_copies(sample, count=5, generator=seeded(seed))
    assert first.shape == (5, *shape)
    assert torch.equal(first, gaussian_copies(sample, count=5, generator=seeded(seed)))
    single = gaussian_copies(sample.float(), count=5, generator=seeded(seed))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), first, rtol=0, atol=1e-6)


def test_noise_has_the_stated_mean_and_deviation():
    sample = torch.tensor([3.0, -2.0], dtype=torch.float64)
    copies = gaussian_copies(sample, count=20_000, sigma=0.1, generator=seeded(1))
    # Standard errors are 0.1 / sqrt(20000) = 7e-4 and 5e-4.
    torch.testing.assert_close(copies.mean(0), sample, rtol=0, atol=4e-3)
    torch.testing.assert_close(copies.std(0), torch.full_like(sample, 0.1), rtol=0, atol=3e-3)


def test_the_global_generator_is_not_used():
    state = torch.get_rng_state()
    gaussian_copies(torch.zeros(3), generator=seeded(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_perturbed_is_refused():
    with pytest.raises(ConfigurationError, match=r"torch\.int64.*continuous"):
        gaussian_copies(torch.zeros(3, dtype=torch.int64), generator=seeded(0))
    with pytest.raises(ConfigurationError, match="at least 2 copies"):
        gaussian_copies(torch.zeros(3), count=1, generator=seeded(0))
    for sigma in (0.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="positive, finite sigma"):
            gaussian_copies(torch.zeros(3), sigma=sigma, generator=seeded(0))


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    parts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    length=st.integers(1, 40),
    tokens=st.booleans(),
)
def test_the_copies_do_not_depend_on_how_many_are_drawn_at_once(seed, parts, length, tokens):
    perturbation: Perturbation = TokenPerturbation(VOCABULARY, 2) if tokens else GaussianPerturbation()
    sample = torch.arange(length) % 5 + 3 if tokens else torch.zeros(length, dtype=torch.float64)
    whole = perturbation.copies(sample, count=sum(parts), generator=seeded(seed))
    generator = seeded(seed)
    pieces = [perturbation.copies(sample, count=part, generator=generator) for part in parts]
    assert torch.equal(torch.cat(pieces), whole)


@settings(deadline=None)
@given(
    tokens=st.lists(st.integers(0, 11), min_size=1, max_size=12).filter(lambda one: ORDINARY & set(one)),
    replacements=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_ordinary_tokens_alone_are_replaced_by_others(tokens, replacements, seed):
    sample = torch.tensor(tokens)
    copies = replaced_tokens(sample, count=6, replacements=replacements, vocabulary=VOCABULARY, generator=seeded(seed))
    assert copies.shape == (6, len(tokens))
    assert copies.dtype == torch.int64
    ordinary = [place for place, one in enumerate(tokens) if one in ORDINARY]
    for copy in copies.tolist():
        moved = [place for place, (before, after) in enumerate(zip(tokens, copy, strict=True)) if before != after]
        assert set(moved) <= set(ordinary)
        assert len(moved) == min(replacements, len(ordinary))
        assert all(copy[place] in ORDINARY for place in moved)
    assert sample.tolist() == tokens


def test_places_and_replacements_are_uniform():
    sample = torch.tensor([1, 3, 8, 8, 2, 0, 0])
    copies = replaced_tokens(sample, count=6000, replacements=1, vocabulary=VOCABULARY, generator=seeded(4))
    moved = copies != sample
    # 2000 a place, and 2000 / 7 for each of the 7 other tokens: standard errors are 37 and 16.
    assert (moved.sum(0)[1:4] - 2000).abs().max() < 150
    counts = torch.bincount(copies[moved[:, 1], 1], minlength=12)
    assert counts.nonzero().flatten().tolist() == sorted(ORDINARY - {3})
    assert (counts[counts > 0] - 2000 / 7).abs().max() < 70


def test_sequences_that_cannot_be_perturbed_are_refused():
    def draw(sample: torch.Tensor, replacements: int = 1, count: int = 2) -> None:
        replaced_tokens(sample, count=count, replacements=replacements, vocabulary=VOCABULARY, generator=seeded(0))

    with pytest.raises(ConfigurationError, match="no ordinary token"):
        draw(torch.tensor([1, 7, 2, 0]))
    with pytest.raises(ConfigurationError, match=r"from 3 to 12; the vocabulary has 12"):
        draw(torch.tensor([3, 12]))
    for wrong in (torch.zeros(3), torch.zeros(2, 3, dtype=torch.int64)):
        with pytest.raises(ConfigurationError, match="one sequence of int64 token ids"):
            draw(wrong)
    with pytest.raises(ConfigurationError, match="at least one token must be replaced"):
        draw(torch.tensor([3]), replacements=0)
    with pytest.raises(ConfigurationError, match="at least 2 copies"):
        draw(torch.tensor([3]), count=1)


def test_vocabularies_that_make_no_sense_are_refused():
    with pytest.raises(ConfigurationError, match=r"\[4, 9\] are not in a vocabulary of 4"):
        TokenVocabulary(4, frozenset({1, 9}), padding=4)
    with pytest.raises(ConfigurationError, match="1 of 4 tokens are ordinary"):
        TokenVocabulary(4, frozenset({1, 2}), padding=0)
