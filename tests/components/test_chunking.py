from __future__ import annotations

import pytest
import torch

from oubli.components.chunking import LARGEST_CHUNK, activation_bytes, first_sample, samples_per_chunk
from oubli.components.errors import ConfigurationError
from oubli.components.samples import Samples


def test_chunks_fit_the_budget_and_are_never_empty():
    assert samples_per_chunk(100, 1050) == 10
    assert samples_per_chunk(100, 50) == 1
    assert samples_per_chunk(0, 50) == 50
    assert samples_per_chunk(1, 10**9) == LARGEST_CHUNK


def test_activations_are_counted_over_the_leaves(network_objective, images):
    # input 16; convolution, normalisation, tanh and dropout 3 * 16 each; pooling 12, flattening 12, linear 3
    expected = 16 + 4 * 48 + 12 + 12 + 3
    assert activation_bytes(network_objective, images.inputs[:1]) == expected * 8
    assert not any(module._forward_hooks for module in network_objective.module.modules())


def test_an_empty_source_is_refused(network_objective):
    empty = Samples(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="empty"):
        first_sample(network_objective, empty)
