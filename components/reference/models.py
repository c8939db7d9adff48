"""Small reference models of images and of vectors.

Axes: b samples, H height, W width, C channels.

The networks end in a linear layer called `head`: training that alone leaves a frozen backbone under a convex head.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from oubli.components.errors import ConfigurationError


def logistic_regression(features: int, classes: int) -> nn.Module:
    """Multinomial logistic regression on flattened inputs, all weights zero: (b, ...) to (b, classes) logits.

    Convex with cross-entropy, and strictly so with an L2 term, so that the start decides nothing.

    Args:
        features: Numbers in one input.
        classes: Logits of one output.
    """
    linear = nn.Linear(features, classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.Flatten(), linear)


def small_cnn(height: int, width: int, channels: int, classes: int, width_factor: int = 1) -> nn.Module:
    """Two 3x3 convolutions with ReLU and pooling, then one linear layer: (b, channels, H, W) to (b, classes).

    1,898 parameters for 8 x 8 grey images, 10 classes and factor 1.

    Args:
        height: H, at least 4.
        width: W, at least 4.
        channels: C.
        classes: Logits of one output.
        width_factor: Of the 8 and 16 filters.

    Raises:
        ConfigurationError: The images are too small.
    """
    _check_size(height, width, 4)
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


def cnn_batchnorm(height: int, width: int, channels: int, classes: int, width_factor: int = 1) -> nn.Module:
    """Two 3x3 convolutions with batch normalisation, ReLU and pooling, and a linear head: (b, channels, H, W) to
    (b, classes).

    9,122 parameters for 28 x 28 grey images, 10 classes and factor 1. The convolutions have no bias, which the
    normalisation would take away again.

    Args:
        height: H, at least 4.
        width: W, at least 4.
        channels: C.
        classes: Logits of one output.
        width_factor: Of the 8 and 16 filters.

    Raises:
        ConfigurationError: The images are too small.
    """
    _check_size(height, width, 4)
    first, second = 8 * width_factor, 16 * width_factor
    backbone = nn.Sequential(
        *_normalised(channels, first),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_normalised(first, second),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    return HeadedNetwork(backbone, nn.Linear(second * (height // 4) * (width // 4), classes))


def small_resnet(height: int, width: int, channels: int, classes: int, width_factor: int = 1) -> nn.Module:
    """A residual network (He et al., CVPR 2016): stem, three blocks, averaging over positions, a linear head.

    (b, channels, H, W) to (b, classes). Stem, second and third block halve the image; 19,810 parameters for grey
    images, 10 classes and factor 1.

    Args:
        height: H, at least 8.
        width: W, at least 8.
        channels: C.
        classes: Logits of one output.
        width_factor: Of the 8, 16 and 32 filters.

    Raises:
        ConfigurationError: The images are too small.
    """
    _check_size(height, width, 8)
    first, second, third = 8 * width_factor, 16 * width_factor, 32 * width_factor
    backbone = nn.Sequential(
        *_normalised(channels, first, stride=2),
        nn.ReLU(),
        ResidualBlock(first, first),
        ResidualBlock(first, second, stride=2),
        ResidualBlock(second, third, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return HeadedNetwork(backbone, nn.Linear(third, classes))


class HeadedNetwork(nn.Module):
    """`backbone`, and `head` on what it returns."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.backbone(inputs))
        return outputs


class ResidualBlock(nn.Module):
    """Two normalised convolutions, and a way around them: a 1x1 convolution where the shape changes."""

    def __init__(self, entering: int, leaving: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_normalised(entering, leaving, stride=stride), nn.ReLU(), *_normalised(leaving, leaving)
        )
        same = stride == 1 and entering == leaving
        self.around = nn.Identity() if same else nn.Sequential(*_normalised(entering, leaving, size=1, stride=stride))

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.relu(self.body(inputs) + self.around(inputs))


def _normalised(entering: int, leaving: int, *, size: int = 3, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(entering, leaving, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(leaving),
    )


def _check_size(height: int, width: int, least: int) -> None:
    if height < least or width < least:
        raise ConfigurationError(
            f"Images of {height} x {width} do not survive the poolings.",
            remedy=f"Use images of at least {least} x {least}.",
        )
