from __future__ import annotations

import pytest
import torch
from model_zoo import problem
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from oubli.components.errors import ConfigurationError
from oubli.components.model.chunking import LARGEST_CHUNK, activation_bytes, first_sample, samples_per_chunk
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples


def test_chunks_fit_the_budget_and_are_never_empty():
    assert samples_per_chunk(100, 1050) == 10
    assert samples_per_chunk(100, 50) == 1
    assert samples_per_chunk(0, 50) == 50
    assert samples_per_chunk(1, 10**9) == LARGEST_CHUNK


def test_what_the_forward_pass_makes_is_counted(network_objective, images):
    # input 16; convolution, normalisation and tanh 3 * 16 each; pooling 12 and their int64 places, linear 3;
    # dropout is off, and flattening makes a view
    expected = 16 + 3 * 48 + 12 + 12 + 3
    assert activation_bytes(network_objective, images.inputs[:1]) == expected * 8


def test_tokens_and_tuples_are_counted():
    objective, samples = problem("lstm")
    # 6 int64 tokens; 6 rows of 8 from the embedding, 6 outputs of 8 from the cell: at least.
    assert activation_bytes(objective, samples.inputs[:1]) >= (6 + 6 * 8 + 6 * 8) * 8


def test_attention_counts_with_its_scores():
    objective, samples = problem("fused attention")

    def of(tokens: int) -> int:
        return activation_bytes(objective, samples.inputs[-1:].repeat(1, tokens))

    # Scores grow with the square of the sequence: 2 heads, float64, at least the scores themselves.
    assert of(20) - 2 * of(10) >= 2 * 8 * (120**2 - 2 * 60**2)


def test_what_all_samples_share_is_not_counted():
    plain = nn.Sequential(nn.Linear(4, 50))
    shared = nn.Sequential(weight_norm(nn.Linear(4, 50)))
    inputs = torch.zeros(1, 4, dtype=torch.float64)
    found = [activation_bytes(Objective(one, cross_entropy, 0.0), inputs) for one in (plain, shared)]
    assert found == [(4 + 50) * 8] * 2


def test_an_empty_source_is_refused(network_objective):
    empty = Samples(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="empty"):
        first_sample(network_objective, empty)
