"""Random copies of one input, to see what the network's parts know about it.

Axes: N copies.

Mehta et al., CVPR 2022 (arXiv 2204.07655): the loss and the activations are watched while the input is moved a little.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError

PERTURBATIONS = 1000
"""N, the number of copies: the paper's default."""

SIGMA = 0.1
"""Standard deviation of the noise, in the units of normalised inputs: the paper's default."""


def gaussian_copies(
    sample: Tensor, *, count: int = PERTURBATIONS, sigma: float = SIGMA, generator: torch.Generator
) -> Tensor:
    """(N, ...) copies of one continuous input (...), each `sample + sigma * standard normal noise`.

    The noise is drawn on the CPU in float64, so that a seed means the same copies on every device and in every dtype.
    """
    if not sample.is_floating_point():
        raise ConfigurationError(
            f"Inputs have dtype {sample.dtype}; Gaussian noise needs continuous inputs.",
            remedy="Decode and normalise the inputs to floating point first.",
        )
    if count < 2 or not sigma > 0:
        raise ConfigurationError(
            f"perturbations = {count} and sigma = {sigma}; at least 2 copies and a positive sigma are needed.",
            remedy=f"The method's defaults are {PERTURBATIONS} and {SIGMA}.",
        )
    noise = torch.randn((count, *sample.shape), dtype=torch.float64, generator=generator)
    return sample + (sigma * noise).to(sample.device, sample.dtype)
