from __future__ import annotations

import pytest
import torch

from oubli.components.errors import ConfigurationError
from oubli.components.reference.models import cnn_batchnorm, small_resnet
from oubli.components.reference.text_models import text_encoder


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("factory", "parameters"), [(cnn_batchnorm, 9122), (small_resnet, 19810)])
def test_networks_have_the_size_they_say(factory, parameters):
    assert count(factory(28, 28, 1, 10)) == parameters


@pytest.mark.parametrize("factory", [cnn_batchnorm, small_resnet])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (14, 14), (9, 13)])
def test_networks_take_the_images_they_were_built_for(factory, height, width):
    module = factory(height, width, 2, 5, width_factor=2).eval()
    assert module(torch.zeros(3, 2, height, width)).shape == (3, 5)


@pytest.mark.parametrize(("factory", "height"), [(cnn_batchnorm, 3), (small_resnet, 7)])
def test_images_too_small_for_the_poolings_are_refused(factory, height):
    with pytest.raises(ConfigurationError, match=f"{height} x 8"):
        factory(height, 8, 1, 10)


def encoder(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return text_encoder(20, 8, 3, width=8, **options).double().eval()


def test_the_encoder_ignores_padding():
    module = encoder(layers=2)
    tokens = torch.tensor([[2, 5, 6, 7]])
    padded = torch.nn.functional.pad(tokens, (0, 4))
    torch.testing.assert_close(module(tokens), module(padded), rtol=0, atol=1e-12)


def test_the_encoder_s_attention_is_the_softmax_over_attended_tokens():
    module = encoder()
    attention = module.layers[0].attention
    hidden = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    attended = torch.tensor([[True] * 5, [True, True, True, False, False]])
    found = attention(hidden, attended)
    for sample in range(2):
        kept = attended[sample]
        query, key, value = (layer(hidden[sample]) for layer in (attention.query, attention.key, attention.value))
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            weights = torch.softmax(query[:, head] @ key[kept][:, head].T / 2, dim=1)
            heads.append(weights @ value[kept][:, head])
        torch.testing.assert_close(found[sample], attention.out(torch.cat(heads, 1)), rtol=0, atol=1e-12)


def test_a_text_of_padding_alone_has_finite_outputs():
    assert encoder()(torch.zeros(1, 4, dtype=torch.int64)).isfinite().all()


def test_another_padding_token_can_be_named():
    module = encoder(padding=3)
    tokens = torch.tensor([[2, 5]])
    torch.testing.assert_close(module(tokens), module(torch.tensor([[2, 5, 3, 3]])), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("options", "problem"), [({"heads": 3}, "3 heads"), ({"padding": 20}, "outside")])
def test_an_encoder_that_cannot_be_built_is_refused(options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        encoder(**options)


def test_dropout_is_on_in_training_alone():
    module = encoder(dropout=0.5)
    tokens = torch.tensor([[2, 5, 6]])
    assert torch.equal(module(tokens), module(tokens))
    module.train()
    assert not torch.equal(module(tokens), module(tokens))
