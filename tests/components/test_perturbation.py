from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oubli.components.errors import ConfigurationError
from oubli.components.perturbation import gaussian_copies


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
    for arguments in ({"count": 1}, {"sigma": 0.0}, {"sigma": float("nan")}):
        with pytest.raises(ConfigurationError, match="at least 2 copies and a positive sigma"):
            gaussian_copies(torch.zeros(3), generator=seeded(0), **arguments)
