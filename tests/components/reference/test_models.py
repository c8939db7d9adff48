from __future__ import annotations

import pytest
import torch

from oubli.components.errors import ConfigurationError
from oubli.components.reference.models import logistic_regression, small_cnn


def test_logistic_regression_starts_at_zero_and_flattens():
    module = logistic_regression(16, 3)
    assert not any(parameter.any() for parameter in module.parameters())
    assert module(torch.ones(2, 1, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 4), (9, 7)])
def test_small_cnn_takes_the_images_it_was_built_for(height, width):
    module = small_cnn(height, width, 2, 5, width_factor=2)
    assert module(torch.zeros(3, 2, height, width)).shape == (3, 5)


def test_small_cnn_is_small():
    assert sum(parameter.numel() for parameter in small_cnn(8, 8, 1, 10).parameters()) == 1898


def test_images_too_small_for_the_pooling_are_refused():
    with pytest.raises(ConfigurationError, match="3 x 8"):
        small_cnn(3, 8, 1, 10)
