"""The secant of a training's last two epochs, recorded while it trains.

Axes: n samples, d trained parameters.

Mehta et al., CVPR 2022, section 5: the change of the mean gradient between the last two epochs stands for curvature.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oubli.components.curvature.secant import Secant
from oubli.components.errors import ConfigurationError
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.losses import LossFunction
from oubli.components.model.objective import Objective
from oubli.components.model.parameters import ParameterSpace
from oubli.components.model.samples import SampleSource


class LastEpochs:
    """Keeps the trained weights of the last two epochs; its `record` is what a trainer calls after each."""

    def __init__(self, module: nn.Module, trained: Sequence[str] | None = None) -> None:
        """Of a module that is about to be trained.

        Args:
            module: The one that is trained.
            trained: Names of the parameters, or of the modules, that are trained; None means all.
        """
        self._module = module
        self._trained = trained
        self._space = ParameterSpace.of(module, trained)
        self._kept: list[Tensor] = []

    def record(self, _epoch: int) -> None:
        """Keep the weights of the epoch that has just ended."""
        self._kept = [*self._kept[-1:], self._space.theta_of(self._module)]

    def secant(self, samples: SampleSource, loss: LossFunction) -> Secant:
        """s, the weights' change over the last epoch, and y, that of the mean loss's gradient without L2 term.

        Both gradients are over all samples, in evaluation mode, in float64 and with the module's present buffers: the
        change of one function.

        Args:
            samples: The training samples.
            loss: That was trained with.

        Raises:
            ConfigurationError: Fewer than two epochs were recorded.
        """
        if len(self._kept) < 2:
            raise ConfigurationError(
                f"{len(self._kept)} epochs were recorded; a secant needs two.", remedy="Train for at least 2 epochs."
            )
        objective = Objective(self._module, loss, 0.0, dtype=torch.float64, trained=self._trained)
        before, last = (theta.to(torch.float64) for theta in self._kept)
        gradients = [gradient_sum(objective, theta, samples) / len(samples) for theta in (before, last)]
        return Secant(last - before, gradients[1] - gradients[0])
