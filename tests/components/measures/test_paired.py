from __future__ import annotations

import math

import pytest
import torch

from oubli.components.errors import ConfigurationError
from oubli.components.measures.paired import paired


def test_predictions_are_compared_as_mcnemar_does():
    """Of ten samples, three are right under the first model alone and one under the second alone."""
    first = torch.tensor([1.0, 1, 1, 0, 1, 1, 1, 0, 0, 1])
    second = torch.tensor([0.0, 0, 0, 1, 1, 1, 1, 0, 0, 1])
    found = paired(first, second)
    assert (found.n, found.first, found.second) == (10, pytest.approx(0.7), pytest.approx(0.5))
    assert found.fall == pytest.approx(0.2)
    assert found.error == pytest.approx(math.sqrt(3 + 1 - 2**2 / 10) / 10)
    assert found.sure_fall == pytest.approx(0.2 - 1.6449 * math.sqrt(3.6) / 10)
    assert found.sure_rise == pytest.approx(-0.2 - 1.6449 * math.sqrt(3.6) / 10)


def test_losses_are_compared_by_the_spread_of_their_differences():
    found = paired(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 3.5]))
    # Differences -0.5 and -1.5: mean -1, standard deviation 0.5.
    assert found.fall == pytest.approx(-1.0)
    assert found.error == pytest.approx(0.5 / math.sqrt(2))
    assert found.sure_rise == pytest.approx(1 - 1.6449 * 0.5 / math.sqrt(2))


def test_models_that_agree_differ_for_sure_by_nothing():
    found = paired(torch.ones(5), torch.ones(5))
    assert (found.error, found.sure_fall, found.sure_rise) == (0, 0, 0)


@pytest.mark.parametrize("shape", [(3,), (0,)])
def test_other_samples_cannot_be_compared(shape):
    with pytest.raises(ConfigurationError, match="sample by sample"):
        paired(torch.zeros(0), torch.zeros(shape))
