"""What a model retrained without the removed samples would say on them, from what a surrogate says.

Axes: m removed samples, n - m retained ones, k held-out ones (never in training).

On a trained network the removed samples' gradients have vanished, because they are fitted, and no Newton step built
from them forgets. With a retrained model's true outputs as targets the model moves there in a few steps, so the targets
are what has to be estimated. (Matching predicted outputs: Georgiev et al., *Attribute-to-Delete*, ICLR 2025, who
predict them from many trainings; here one brief surrogate does.)

A surrogate is less sure than a trained model, so it is calibrated to the original on held-out samples, where both
speak of what they have not seen. The map by divergence k draws its outputs together, since it is right on average of
what the surrogate cannot say; the map by moments d gives them the original's spread. The target is the middle,

    T = (k(s(x)) + d(s(x))) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.model.losses import LossFunction
from oubli.components.removal.calibration import Affine
from oubli.components.removal.output_families import OutputFamily, output_family

LEAST_HARDNESS, GREATEST_HARDNESS = 1e-3, 4.0
"""In nats: every retained sample can be drawn, and none crowds the others out."""

LEAST_HELD_OUT = 2
"""One sample has no spread."""


@dataclass(frozen=True)
class Calibrations:
    """From a surrogate's outputs to the original model's.

    Attributes:
        by_divergence: k.
        by_moments: d.
    """

    by_divergence: Affine
    by_moments: Affine
    _family: OutputFamily

    def target(self, outputs: Tensor) -> Tensor:
        """The targets for a surrogate's raw outputs (m, ...): (m, ...) in their dtype, centred where they are logits
        of classes."""
        given = self._family.centred(outputs.to(torch.float64))
        middle = (self.by_divergence(given) + self.by_moments(given)) / 2
        return self._family.centred(middle).to(outputs.dtype)


def calibrate(loss: LossFunction, surrogate: Tensor, original: Tensor) -> Calibrations:
    """The two maps from a surrogate's outputs on the held-out samples to the original model's.

    Args:
        loss: The loss that both were trained with.
        surrogate: (k, ...) raw outputs of the surrogate.
        original: (k, ...) raw outputs of the original model on the same samples.

    Raises:
        ConfigurationError: The loss has no calibration, the shapes differ, or there are fewer than 2 samples.
        NonFiniteInput: Outputs are not finite.
    """
    _check_tables(surrogate, original, "held-out", LEAST_HELD_OUT)
    family = output_family(loss, original)
    return Calibrations(family.by_divergence(surrogate, original), family.by_moments(surrogate, original), family)


def removal_targets(
    loss: LossFunction, *, surrogate_removed: Tensor, surrogate_held_out: Tensor, original_held_out: Tensor
) -> Tensor:
    """T, (m, ...): what a retrained model would say on the removed samples.

    Args:
        loss: As in `calibrate`, as are the other arguments.
        surrogate_removed: (m, ...) raw outputs of the surrogate on all samples removed since training.
        surrogate_held_out: (k, ...).
        original_held_out: (k, ...).

    Raises:
        ConfigurationError: As `calibrate`.
        NonFiniteInput: Outputs are not finite.
    """
    targets = calibrate(loss, surrogate_held_out, original_held_out).target(surrogate_removed)
    if not bool(torch.isfinite(targets).all()):
        raise NonFiniteInput(
            "The surrogate's outputs on the removed samples are NaN or infinite.", remedy="Lower rate_factor."
        )
    return targets


def hardness(loss: LossFunction, *, original: Tensor, surrogate: Tensor) -> Tensor:
    """How much a retained sample needs to be held on to: what training knows of it that a brief training does not.

    Args:
        original: (n - m, ...) raw outputs of the original model on the retained samples.
        surrogate: (n - m, ...) raw outputs of the surrogate on them.

    Returns:
        (n - m,) float64, KL(original || surrogate) in nats, within LEAST_HARDNESS and GREATEST_HARDNESS.

    Raises:
        ConfigurationError: The loss has no predictive distribution here, the shapes differ, or a table is empty.
        NonFiniteInput: Outputs are not finite.
    """
    _check_tables(surrogate, original, "retained", 1)
    divergence = output_family(loss, original).divergence(original.to(torch.float64), surrogate.to(torch.float64))
    return divergence.clamp(LEAST_HARDNESS, GREATEST_HARDNESS)


def _check_tables(surrogate: Tensor, original: Tensor, samples: str, least: int) -> None:
    if surrogate.shape != original.shape or len(surrogate) < least:
        raise ConfigurationError(
            f"Outputs of shape {tuple(surrogate.shape)} and {tuple(original.shape)} on the {samples} samples; the same "
            f"shape with at least {least} rows is needed.",
            remedy="Pass both models' outputs on the same samples, in the same order.",
        )
    if not bool(torch.isfinite(surrogate).all()) or not bool(torch.isfinite(original).all()):
        raise NonFiniteInput(
            f"Outputs on the {samples} samples are NaN or infinite.",
            remedy="Check both models' weights and the inputs.",
        )
