from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, special
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.model.losses import bce_with_logits, cross_entropy, mse
from oubli.components.removal.targets import GREATEST_HARDNESS, LEAST_HARDNESS, calibrate, hardness, removal_targets


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tables(*shape: int) -> dict[str, Tensor]:
    """A surrogate that knows something of what the original says, on 7 removed and 50 held-out samples."""
    held_out = normal(50, *shape, seed=1)
    return {
        "surrogate_removed": normal(7, *shape, seed=2),
        "surrogate_held_out": held_out,
        "original_held_out": 2.5 * held_out + normal(50, *shape, seed=3),
    }


def centred(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(1, keepdims=True)


def test_targets_of_classes_are_those_of_the_formula():
    given = tables(4)
    s, f0, u = (
        centred(given[name].numpy()) for name in ("surrogate_held_out", "original_held_out", "surrogate_removed")
    )
    p = special.softmax(f0, 1)

    def value(x: np.ndarray) -> float:
        q = special.log_softmax(x[0] * s + x[1:], 1)
        return float((p * (np.log(p) - q)).sum(1).mean() + 1e-3 * (x[1:] ** 2).sum())

    best = optimize.minimize(value, np.r_[1.0, np.zeros(4)], method="BFGS", options={"gtol": 1e-8}).x
    k = best[0] * u + best[1:]
    spread = SPREAD(f0) / SPREAD(s)
    d = spread * u + f0.mean(0) - spread * s.mean(0)
    expected = torch.tensor(centred((k + d) / 2))
    torch.testing.assert_close(removal_targets(cross_entropy, **given), expected, rtol=1e-4, atol=1e-5)


def SPREAD(rows: np.ndarray) -> np.ndarray:  # noqa: N802
    return rows.std(0)


def test_targets_of_classes_are_centred_and_keep_their_dtype():
    given = {name: table.float() for name, table in tables(4).items()}
    targets = removal_targets(cross_entropy, **given)
    assert targets.dtype == torch.float32
    assert torch.allclose(targets.mean(1), torch.zeros(7), atol=1e-6)


@pytest.mark.parametrize("loss", [bce_with_logits, mse])
@pytest.mark.parametrize("shape", [(3,), ()])
def test_other_outputs_are_calibrated_one_by_one(loss, shape):
    given = tables(*shape)
    targets = removal_targets(loss, **given)
    assert targets.shape == (7, *shape)
    if shape:
        for j in range(3):
            alone = removal_targets(loss, **{name: table[:, j] for name, table in given.items()})
            torch.testing.assert_close(targets[:, j], alone)


def test_a_surrogate_that_says_what_the_original_says_is_believed():
    given = tables(4)
    given["original_held_out"] = given["surrogate_held_out"]
    expected = given["surrogate_removed"] - given["surrogate_removed"].mean(1, keepdim=True)
    torch.testing.assert_close(removal_targets(cross_entropy, **given), expected)


def test_hardness_is_the_divergence_between_its_bounds():
    log3 = float(np.log(3))
    original = torch.tensor([[0.0, 0.0], [log3, 0.0], [9.0, 0.0]])
    surrogate = torch.tensor([[1.0, 1.0], [0.0, 0.0], [-9.0, 0.0]])
    found = hardness(cross_entropy, original=original, surrogate=surrogate)
    between = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert found.tolist() == pytest.approx([LEAST_HARDNESS, between, GREATEST_HARDNESS], rel=1e-6)


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ConfigurationError, match=r"\(5, 3\) and \(4, 3\)"):
        calibrate(cross_entropy, torch.zeros(5, 3), torch.zeros(4, 3))
    with pytest.raises(ConfigurationError, match="at least 2 rows"):
        calibrate(cross_entropy, torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(NonFiniteInput):
        hardness(cross_entropy, original=torch.full((2, 3), torch.inf), surrogate=torch.zeros(2, 3))
    given = tables(4)
    given["surrogate_removed"][0, 0] = torch.nan
    with pytest.raises(NonFiniteInput, match="removed samples"):
        removal_targets(cross_entropy, **given)
