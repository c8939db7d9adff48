"""The training objective as a function of one flat weight vector.

Axes: b samples of a batch, n samples of a source, d parameters.

    F(w) = (1/n) * sum_i loss(w, z_i) + (l2/2) * ||w||^2

over every trained parameter w, biases included. Parameters outside the scope of training (a frozen backbone) are
constants, like buffers: no gradient, no curvature and no penalty knows them. The module runs in evaluation mode with
its buffers fixed: dropout is off and batch normalisation uses its running statistics, so that F is one deterministic
function.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.model.attention import without_fast_path
from oubli.components.model.losses import Loss, LossFunction, loss_kind
from oubli.components.model.parameters import ParameterSpace
from oubli.components.model.samples import Samples


@dataclass(frozen=True)
class Objective:
    """F(w) for a module, a per-sample loss and an L2 coefficient.

    The module is copied: the caller's own is neither changed nor kept. A call swaps weights into the copy, so one
    objective serves one thread at a time.

    Attributes:
        module: The model; here the copy, in evaluation mode.
        loss: (outputs (b, ...), labels (b, ...)) -> losses (b,).
        l2: Finite and not negative.
        device: Of every computation; sample tensors are moved to it batch by batch.
        dtype: Of every computation, a floating-point type.
        trained: Names of the parameters, or of the modules, that were trained; None means all.
        space: The trained parameters as one flat vector.

    Raises:
        ConfigurationError: l2 or dtype cannot be, or `trained` fits no parameters.
    """

    module: nn.Module
    loss: LossFunction
    l2: float
    _: KW_ONLY
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float64
    trained: Sequence[str] | None = None
    space: ParameterSpace = field(init=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.l2) and self.l2 >= 0):
            raise ConfigurationError(
                f"l2 is {self.l2}; it must be finite and not negative.",
                remedy="Give the coefficient of (l2/2) * ||w||^2 that the model was trained with.",
            )
        if not self.dtype.is_floating_point:
            raise ConfigurationError(f"dtype is {self.dtype}; floating point is needed.", remedy="Use torch.float64.")
        own = copy.deepcopy(self.module).to(device=self.device, dtype=self.dtype).eval().requires_grad_(False)
        object.__setattr__(self, "module", own)
        object.__setattr__(self, "space", ParameterSpace.of(own, self.trained))

    @property
    def kind(self) -> Loss | None:
        """The loss by name, None for a loss from elsewhere."""
        return loss_kind(self.loss)

    def theta(self) -> Tensor:
        """The weights that the module came with, (d,)."""
        return self.space.theta_of(self.module)

    def prepare(self, samples: Samples) -> Samples:
        """The samples on this objective's device and in its dtype."""
        return samples.to(self.device, self.dtype)

    def outputs(self, parameters: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """The module's outputs.

        Args:
            parameters: Weights by name; those that are left out are the module's own.
            inputs: (b, ...), prepared.

        Returns:
            (b, ...).

        Raises:
            ConfigurationError: The module returns something else than one tensor.
        """
        with without_fast_path():
            outputs = functional_call(self.module, dict(parameters), (inputs,))
        if not isinstance(outputs, Tensor):
            raise ConfigurationError(
                f"{type(self.module).__name__} returned {type(outputs).__name__}; one tensor is needed.",
                remedy="Wrap the module so that forward(inputs) returns the tensor that the loss takes.",
            )
        return outputs

    def losses(self, theta: Tensor, samples: Samples) -> Tensor:
        """Per-sample losses, without the L2 term; differentiable in theta.

        Args:
            theta: (d,) weights.
            samples: b prepared samples.

        Returns:
            (b,).

        Raises:
            ConfigurationError: The loss returns something else than one number per sample.
        """
        losses = self.loss(self.outputs(self.space.unflatten(theta), samples.inputs), samples.labels)
        if losses.shape != (len(samples),):
            raise ConfigurationError(
                f"The loss returned shape {tuple(losses.shape)} for {len(samples)} samples.",
                remedy="A loss returns one number per sample (no reduction over the batch).",
            )
        return losses

    def penalty(self, theta: Tensor) -> Tensor:
        """(l2/2) * ||theta||^2, a scalar."""
        return 0.5 * self.l2 * theta.dot(theta)

    def check(self, theta: Tensor) -> None:
        """Whether theta is a usable (d,) weight vector.

        Raises:
            ConfigurationError: It has another shape.
            NonFiniteInput: A weight is NaN or infinite.
        """
        self.space.unflatten(theta)
        bad = int((~torch.isfinite(theta)).sum())
        if bad:
            raise NonFiniteInput(
                f"{bad} of {self.space.d} weights are NaN or infinite.",
                remedy="Load weights of a model that trained to finite values.",
            )
