from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from oubli.components.errors import ConfigurationError
from oubli.components.model.losses import bce_with_logits, cross_entropy, mse
from oubli.components.removal.output_families import Bernoulli, Normal, Softmax, output_family


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_softmax_by_hand():
    # softmax(ln 3, 0) = (3/4, 1/4) against (1/2, 1/2); the centred logits differ by (ln 3)/2 each.
    teacher, outputs = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[5.0, 5.0]])
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert Softmax().divergence(teacher, outputs).item() == pytest.approx(divergence)
    expected = divergence + 0.5 * (math.log(3) / 2) ** 2
    assert Softmax().distance(teacher, outputs).item() == pytest.approx(expected)


def test_bernoulli_is_softmax_of_the_logit_and_zero():
    teacher, outputs = normal(6, 3, seed=1), normal(6, 3, seed=2)
    pairs = [torch.stack([torch.zeros_like(one), one], 1) for one in (teacher, outputs)]
    torch.testing.assert_close(Bernoulli().divergence(teacher, outputs), Softmax().divergence(*pairs))
    square = Bernoulli().distance(teacher, outputs) - Bernoulli().divergence(teacher, outputs)
    torch.testing.assert_close(square, 0.5 * functional.mse_loss(teacher, outputs, reduction="none").mean(1))


def test_normal_by_hand():
    # Standard deviation 2 about 4: a difference of 3 is 1.5 of them.
    family = Normal.spread_as(torch.tensor([[2.0], [6.0]]))
    teacher, outputs = torch.tensor([[1.0]]), torch.tensor([[4.0]])
    assert family.divergence(teacher, outputs).item() == pytest.approx(0.5 * 1.5**2)
    assert torch.equal(family.distance(teacher, outputs), family.divergence(teacher, outputs))


def test_a_constant_output_is_measured_in_its_own_unit():
    assert Normal.spread_as(torch.full((5, 1), 3.0)).scale.item() == 1.0


@pytest.mark.parametrize("family", [Softmax(), Bernoulli()])
def test_positions_are_averaged(family):
    teacher, outputs = normal(2, 4, 3, seed=1), normal(2, 4, 3, seed=2)
    each = torch.stack([family.distance(teacher[:, :, t], outputs[:, :, t]) for t in range(3)])
    torch.testing.assert_close(family.distance(teacher, outputs), each.mean(0))


def test_positions_are_calibrated_as_samples_are():
    source, reference = normal(5, 4, 3, seed=1), normal(5, 4, 3, seed=2)
    flat = [values.movedim(1, -1).reshape(15, 4) for values in (source, reference)]
    for way in ("by_divergence", "by_moments"):
        mapped = getattr(Softmax(), way)(source, reference)(source)
        expected = getattr(Softmax(), way)(*flat)(flat[0])
        torch.testing.assert_close(mapped, expected.reshape(5, 3, 4).movedim(-1, 1))


def test_a_constant_added_to_all_logits_changes_nothing():
    source, reference, added = normal(9, 4, seed=1), normal(9, 4, seed=2), normal(9, 1, seed=3)
    family = Softmax()
    torch.testing.assert_close(family.distance(reference, source), family.distance(reference + added, source - added))
    for way in (family.by_divergence, family.by_moments):
        first, second = way(source, reference), way(source + added, reference - added)
        torch.testing.assert_close(first.scale, second.scale)
        torch.testing.assert_close(first.shift, second.shift)


def test_a_regression_is_calibrated_alike_in_every_unit_and_from_every_origin():
    source, reference = normal(30, 2, seed=1), 3 * normal(30, 2, seed=2) + 1
    plain = Normal.spread_as(reference).by_divergence(source, reference)(source)
    moved = Normal.spread_as(1000 * reference + 5e4)
    other = moved.by_divergence(1000 * source + 5e4, 1000 * reference + 5e4)(1000 * source + 5e4)
    torch.testing.assert_close(other, 1000 * plain + 5e4)


@pytest.mark.parametrize(("loss", "family"), [(cross_entropy, Softmax), (bce_with_logits, Bernoulli), (mse, Normal)])
def test_each_loss_has_its_family(loss, family):
    assert isinstance(output_family(loss, torch.zeros(3, 2)), family)


def test_a_loss_from_elsewhere_is_refused_by_name():
    def focal(outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.sum(1)

    with pytest.raises(ConfigurationError, match=r"'focal' have no calibration.*cross_entropy, bce_with_logits, mse"):
        output_family(focal, torch.zeros(3, 2))
