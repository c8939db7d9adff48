"""Small reference models.

Axes: b samples, H height, W width.
"""

from __future__ import annotations

from torch import nn

from oubli.components.errors import ConfigurationError


def logistic_regression(features: int, classes: int) -> nn.Module:
    """Multinomial logistic regression on flattened inputs (b, ...), all weights zero; returns (b, classes) logits.

    Convex with cross-entropy, and strictly so with an L2 term, so that the start decides nothing.
    """
    linear = nn.Linear(features, classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Flatten(), linear)


def small_cnn(height: int, width: int, channels: int, classes: int, width_factor: int = 1) -> nn.Module:
    """Two 3x3 convolutions with ReLU and pooling, then one linear layer: (b, channels, H, W) to (b, classes).

    8 and 16 filters times `width_factor`; 1,898 parameters for 8 x 8 grey images, 10 classes and factor 1.
    """
    if height < 4 or width < 4:
        raise ConfigurationError(
            f"Images of {height} x {width} do not survive two poolings.", remedy="Use images of at least 4 x 4."
        )
    first, second = 8 * width_factor, 16 * width_factor
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (height // 4) * (width // 4), classes),
    )
