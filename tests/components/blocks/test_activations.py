from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from model_zoo import EVERY, PADDING, TOKENS, VOCABULARY, Pooled, problem, texts
from torch import Tensor, nn

from oubli.components.blocks.activations import ActivationRecord, record_activations, record_perturbed, recordable
from oubli.components.blocks.perturbation import GaussianPerturbation, TokenPerturbation, TokenVocabulary
from oubli.components.blocks.slices import SliceMap, find_slices
from oubli.components.errors import ConfigurationError
from oubli.components.model.attention import differentiable_attention
from oubli.components.model.losses import cross_entropy
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples

REPLACING = TokenPerturbation(TokenVocabulary(VOCABULARY, frozenset({1}), PADDING), 2)


def hooks_of(objective: Objective) -> int:
    return sum(len(module._forward_hooks) for module in objective.module.modules())


def columns(slices: SliceMap, record: ActivationRecord, module: str) -> np.ndarray:
    """The columns of one layer."""
    return record.activations[:, [place for place, one in enumerate(slices.slices) if one.module == module]]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(found: np.ndarray, expected: Tensor | list[Tensor]) -> None:
    oracle = torch.stack(expected) if isinstance(expected, list) else expected
    np.testing.assert_allclose(found, oracle.detach().numpy(), rtol=1e-10, atol=1e-12)


class Sequences(nn.Module):
    """(b, T, 3) to (b, 2): a linear layer over tokens, a 1d convolution, and one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(3, 4)
        self.along = nn.Conv1d(4, 4, 2)
        self.twice = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.along(self.tokens(inputs).tanh().transpose(1, 2)).mean(2)
        return self.head(self.twice(self.twice(hidden).tanh()))


def test_convolutional_record_matches_one_pass_per_copy(network_objective, images):
    theta, slices = network_objective.theta(), find_slices(network_objective.module)
    assert recordable(network_objective, theta, slices, images.inputs[:1]) == slices
    activations, losses = [], []
    module = network_objective.module
    for inputs, label in zip(images.inputs, images.labels, strict=True):
        convolved = module[0](inputs[None])
        scores = module(inputs[None])
        normalised = module[1](convolved)
        activations.append(torch.cat([convolved.mean((0, 2, 3)), normalised.mean((0, 2, 3)), scores[0]]))
        losses.append(float(cross_entropy(scores, label[None])))
    for budget_bytes in (1, 2**20):
        record = record_activations(network_objective, theta, slices, images, budget_bytes=budget_bytes)
        assert record.activations.dtype == record.losses.dtype == np.float64
        np.testing.assert_allclose(record.activations, torch.stack(activations).numpy(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(record.losses, losses, rtol=1e-10)
    assert hooks_of(network_objective) == 0


def test_sequence_record_matches_one_pass_per_copy():
    objective = Objective(Sequences(), cross_entropy, 0.0)
    inputs = torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = Samples(inputs, torch.arange(7) % 2)
    slices = find_slices(objective.module)
    record = record_activations(objective, objective.theta(), slices, samples, budget_bytes=2000)
    module = objective.module
    expected = []
    for one in inputs:
        tokens = module.tokens(one[None])
        along = module.along(tokens.tanh().transpose(1, 2))
        first = module.twice(along.mean(2))
        second = module.twice(first.tanh())
        expected.append(
            torch.cat([tokens[0].mean(0), along[0].mean(1), (first[0] + second[0]) / 2, module.head(second)[0]])
        )
    np.testing.assert_allclose(record.activations, torch.stack(expected).numpy(), rtol=1e-10, atol=1e-12)


def test_the_record_follows_theta_not_the_modules_weights(network_objective, images):
    slices = find_slices(network_objective.module)
    theta = torch.zeros_like(network_objective.theta())
    record = record_activations(network_objective, theta, slices, images)
    assert not record.activations.any()
    np.testing.assert_allclose(record.losses, np.log(3))


def test_layers_whose_samples_cannot_be_told_apart_are_left_out():
    class Folding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.folded = nn.Linear(3, 3)
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
            self.unused = nn.Linear(2, 2)
            self.head = nn.Linear(3, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            tokens = self.folded(inputs.reshape(-1, 3)).reshape(inputs.shape)
            return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))

    objective = Objective(Folding(), cross_entropy, 0.0)
    slices = find_slices(objective.module)
    inputs = torch.ones(1, 4, 3, dtype=torch.float64)
    kept = recordable(objective, objective.theta(), slices, inputs)
    names = ["folded", "attention", "attention.out_proj", "unused", "head"]
    assert [layer.module for layer in slices.layers] == names
    assert [layer.module for layer in kept.layers] == ["attention", "attention.out_proj", "head"]
    assert kept.unsliced == ("folded.weight", "folded.bias", "unused.weight", "unused.bias")
    assert hooks_of(objective) == 0


def test_hooks_are_removed_when_the_pass_fails(network_objective, images):
    theta, slices = network_objective.theta(), find_slices(network_objective.module)
    with pytest.raises(IndexError, match="out of bounds"):
        record_activations(network_objective, theta, slices, Samples(images.inputs, images.labels + 10))
    assert hooks_of(network_objective) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EVERY if name != "branching"])
def test_every_kind_of_layer_is_recorded_as_one_copy_at_a_time(name):
    objective, samples = problem(name)
    theta = objective.theta()
    slices = recordable(objective, theta, find_slices(objective.module), samples.inputs)
    unread = {name for name in slices.unsliced if not any(part in name for part in (".cell.", "position_embeddings"))}
    assert unread == set()
    whole = record_activations(objective, theta, slices, samples)
    assert whole.activations.shape == (len(samples), len(slices.slices))
    rows = [record_activations(objective, theta, slices, one) for one in samples.batches(1)]
    np.testing.assert_allclose(whole.activations, np.concatenate([one.activations for one in rows]), atol=1e-12)
    np.testing.assert_allclose(whole.losses, np.concatenate([one.losses for one in rows]), atol=1e-12)
    with differentiable_attention():
        np.testing.assert_allclose(whole.losses, objective.losses(theta, samples).numpy(), atol=1e-12)


def test_layers_that_get_one_sample_at_a_time_are_not_recorded():
    objective, samples = problem("branching")
    slices = recordable(objective, objective.theta(), find_slices(objective.module), samples.inputs)
    assert slices.slices == ()
    assert slices.unsliced == objective.space.names


def test_image_layers_show_their_channels_means():
    objective, samples = problem("images")
    slices = recordable(objective, objective.theta(), find_slices(objective.module), samples.inputs)
    record = record_activations(objective, objective.theta(), slices, samples)
    hidden = samples.inputs
    for place, layer in enumerate(objective.module):
        hidden = layer(hidden)
        if place in (0, 1, 3, 4, 6, 7):
            close(columns(slices, record, str(place)), hidden.mean((2, 3)))
        elif place == 8:
            close(columns(slices, record, str(place)), hidden.mean(1).flatten(1))
    close(columns(slices, record, "10"), hidden)


@pytest.mark.parametrize("name", ["encoder, batch first", "encoder, nested tensors", "encoder, sequence first"])
def test_an_encoders_layers_match_explicit_products(name):
    objective, samples = problem(name)
    theta, module = objective.theta(), objective.module
    slices = recordable(objective, theta, find_slices(module), samples.inputs)
    record = record_activations(objective, theta, slices, samples, budget_bytes=20_000)
    first: dict[str, list[Tensor]] = {"queries": [], "mixed": [], "inner": []}
    for tokens in samples.inputs:
        # The formulas of one encoder layer, on one sequence at a time.
        layer, hidden = module.body.layers.layers[0], module.words.weight[tokens]
        attention = layer.self_attn
        projected = hidden @ attention.in_proj_weight.T + attention.in_proj_bias
        q, k, v = (one.view(TOKENS, 2, 4).transpose(0, 1) for one in projected.split(8, dim=1))
        scores = (q @ k.transpose(1, 2) / 2).masked_fill(tokens == PADDING, -torch.inf)
        joined = (scores.softmax(-1) @ v).transpose(0, 1).reshape(TOKENS, 8)
        mixed = joined @ attention.out_proj.weight.T + attention.out_proj.bias
        inner = layer.norm1(hidden + mixed) @ layer.linear1.weight.T + layer.linear1.bias
        for seen, value in zip(first.values(), (projected, mixed, inner), strict=True):
            seen.append(value.mean(0))
    close(columns(slices, record, "body.layers.layers.0.self_attn"), first["queries"])
    close(columns(slices, record, "body.layers.layers.0.self_attn.out_proj"), first["mixed"])
    close(columns(slices, record, "body.layers.layers.0.linear1"), first["inner"])


def test_projections_of_other_widths_match_explicit_products():
    objective, samples = problem("attention, other widths")
    module = objective.module
    slices = recordable(objective, objective.theta(), find_slices(module), samples.inputs)
    record = record_activations(objective, objective.theta(), slices, samples)
    attention, narrow = module.body.attention, module.body.narrow
    expected = []
    for tokens in samples.inputs:
        hidden = module.words.weight[tokens]
        queries = hidden @ attention.q_proj_weight.T
        keys = (hidden @ narrow.weight.T + narrow.bias) @ attention.k_proj_weight.T
        values = hidden[:, :6] @ attention.v_proj_weight.T
        expected.append(torch.cat([queries, keys, values], dim=1).mean(0) + attention.in_proj_bias)
    close(columns(slices, record, "body.attention"), expected)


def test_rows_of_an_embedding_are_those_that_some_input_uses():
    objective, _ = problem("encoder, batch first")
    theta, weight = objective.theta(), objective.module.words.weight
    removed = Samples(torch.tensor([[3, 5, 5, 9, 0, 0], [5, 2, 3, 3, 3, 0]]), torch.tensor([0, 1]))
    slices = recordable(objective, theta, find_slices(objective.module), removed.inputs)
    rows = [one.unit for one in slices.slices if one.module == "words"]
    assert rows == [2, 3, 5, 9]  # not the padding
    copies = Samples(torch.cat([removed.inputs, torch.tensor([[9, 9, 9, 7, 8, 0]])]), torch.tensor([0, 1, 2]))
    record = record_activations(objective, theta, slices, copies)
    expected = []
    for tokens in copies.inputs.tolist():
        counts = Counter(tokens)
        expected.append(torch.stack([counts[row] / TOKENS * weight[row].square().sum().sqrt() for row in rows]))
    close(columns(slices, record, "words"), expected)
    assert "words.weight" not in slices.unsliced


def test_the_batch_axis_is_found_whatever_the_lengths():
    objective, _ = problem("encoder, sequence first")
    for length in (1, 2, 3, 4):
        inputs = texts().inputs[3:, :length]
        slices = recordable(objective, objective.theta(), find_slices(objective.module), inputs)
        axes = {layer.module: layer.batch_axis for layer in slices.layers}
        assert axes["body.layers.layers.1.linear2"] == axes["body.layers.layers.0.self_attn"] == 1
        assert axes["words"] == axes["head"] == 0


def test_a_table_of_positions_has_no_samples():
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(TOKENS, 8)

        def forward(self, hidden: Tensor, padded: Tensor) -> Tensor:
            return hidden + self.table(torch.arange(hidden.shape[1], device=hidden.device))

    objective = Objective(Pooled(Positions()), cross_entropy, 0.0)
    inputs = texts().inputs
    for length in (2, 3, TOKENS):
        slices = recordable(objective, objective.theta(), find_slices(objective.module), inputs[3:, :length])
        assert slices.unsliced == ("body.table.weight",)


@pytest.mark.parametrize("name", ["images", "encoder, batch first", "bert, sdpa"])
def test_copies_drawn_in_chunks_are_those_drawn_at_once(name):
    objective, samples = problem(name)
    theta = objective.theta()
    perturbation = GaussianPerturbation(0.3) if name == "images" else REPLACING
    slices = recordable(objective, theta, find_slices(objective.module), samples.inputs)
    one = samples.select(torch.tensor([4]))
    copies = perturbation.copies(one.inputs[0], count=30, generator=seeded(1))
    whole = record_activations(objective, theta, slices, Samples(copies, one.labels.expand(30)))
    assert len(np.unique(whole.losses)) > 20
    for budget_bytes in (1, 200_000, 2**30):
        other, record = record_perturbed(
            objective,
            theta,
            slices,
            samples.select(torch.tensor([0, 4])),
            perturbation,
            count=30,
            generators=[seeded(0), seeded(1)],
            budget_bytes=budget_bytes,
        )
        np.testing.assert_allclose(record.activations, whole.activations, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(record.losses, whole.losses, rtol=1e-10)
        assert not np.allclose(other.losses, whole.losses)


def test_what_cannot_be_perturbed_is_refused():
    objective, samples = problem("mlp")
    theta, slices = objective.theta(), find_slices(objective.module)
    with pytest.raises(ConfigurationError, match="5 samples and 1 generators were given"):
        record_perturbed(objective, theta, slices, samples, GaussianPerturbation(), count=3, generators=[seeded(0)])
    with pytest.raises(ConfigurationError, match="at least 2 copies"):
        record_perturbed(
            objective,
            theta,
            slices,
            samples.select(torch.tensor([0])),
            GaussianPerturbation(),
            count=1,
            generators=[seeded(0)],
        )


def test_a_memorised_samples_losses_are_told_apart_in_single_precision():
    objective = Objective(nn.Linear(1, 2), cross_entropy, 0.0, dtype=torch.float32)
    theta = objective.space.flatten({"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.tensor([12.0, -12.0])})
    inputs = torch.tensor([[0.0], [0.5], [1.0]])
    record = record_activations(
        objective, theta, find_slices(objective.module), Samples(inputs, torch.zeros(3, dtype=torch.int64))
    )
    # Margins of 24, 25 and 26; in float32, log(1 + exp(-24)) is 0.
    np.testing.assert_allclose(record.losses, np.log1p(np.exp([-24.0, -25.0, -26.0])), rtol=1e-4)


def test_a_frozen_part_is_neither_sliced_nor_recorded():
    objective, samples = problem("encoder, batch first")
    head = Objective(objective.module, cross_entropy, 0.0, trained=["head", "body.layers.layers.1.linear2.bias"])
    slices = recordable(head, head.theta(), find_slices(head.module, head.space), samples.inputs)
    assert [layer.module for layer in slices.layers] == ["body.layers.layers.1.linear2", "head"]
    whole = recordable(objective, objective.theta(), find_slices(objective.module), samples.inputs)
    found = record_activations(head, head.theta(), slices, samples)
    expected = record_activations(objective, objective.theta(), whole, samples)
    for name in ("body.layers.layers.1.linear2", "head"):
        np.testing.assert_array_equal(columns(slices, found, name), columns(whole, expected, name))
