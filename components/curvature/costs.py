"""What a product with a curvature costs.

Axes: n samples.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from oubli.components.model.attention import differentiable_attention
from oubli.components.model.chunking import first_sample
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import SampleSource

FORWARD_PASSES = 8
"""A product's cost in forward passes: one forward, and three that go backward through it, of two each, and a loss."""


def product_flops(restriction: Restriction, source: SampleSource) -> float:
    """Floating-point operations of one product over a source, counted on a forward pass of its first sample.

    Args:
        restriction: The block, at its weights.
        source: The n samples.

    Raises:
        ConfigurationError: The source is empty.
    """
    inputs = first_sample(restriction.objective, source)
    with FlopCounterMode(display=False) as counter, differentiable_attention(), torch.no_grad():
        restriction.outputs(restriction.values, inputs)
    return float(FORWARD_PASSES * len(source) * counter.get_total_flops())
