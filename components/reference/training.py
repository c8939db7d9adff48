"""Reference trainers, for a first version and for retraining without the removed samples.

Axes: n samples, b samples of a batch, d parameters.

The contract of every retrainer:

    retrain(module, samples, *, loss: LossFunction, l2: float, seed: int, **options) -> module

trains `module` in place from the weights it comes with (a fresh initialisation), towards a minimiser of
F(w) = mean loss + (l2/2) ||w||^2 over the trained parameters, and returns it in evaluation mode. It is a function of
its arguments alone: the global random state is as before when it returns.

`trained` names the parameters, or the modules, that are trained; None means all. The others keep their weights, and
modules that hold none but such keep their statistics and run without dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from oubli.components.curvature.gauss_newton import GaussNewton
from oubli.components.errors import ConfigurationError, NumericalError
from oubli.components.model.chunking import pass_chunk
from oubli.components.model.frozen_head import on_head
from oubli.components.model.gradients import objective_gradient
from oubli.components.model.losses import LossFunction
from oubli.components.model.objective import Objective
from oubli.components.model.parameters import ParameterSpace
from oubli.components.model.restriction import Restriction
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import seeded
from oubli.components.progress import Progress

CONVEX_TOLERANCE = 1e-9
"""||grad F|| at which a convex model counts as trained; with l2 = 1e-3 the weights are then within 1e-6."""

HANDOVER_TOLERANCE = 1e-5
"""||grad F|| at which Newton steps take over from L-BFGS; they then square the error."""

NEWTON_STEPS = 10


# Keyword arguments are the options that a training record stores.
def fit_convex(
    module: nn.Module,
    samples: Samples,
    *,
    loss: LossFunction,
    l2: float,
    seed: int = 0,  # noqa: ARG001 - the contract of every retrainer; a convex optimum depends on no seed
    tolerance: float = CONVEX_TOLERANCE,
    max_iterations: int = 5000,
    trained: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> nn.Module:
    """Minimise a strictly convex F in float64 until ||grad F|| <= `tolerance`: L-BFGS, then Newton steps.

    L-BFGS alone stalls some digits short, where differences of F are rounding and its line search sees nothing. Where
    the trained parameters are a head on a frozen backbone, the backbone's features are computed once.

    Args:
        module: Trained in place; the result is rounded to its own dtype: a float64 module keeps all digits.
        samples: The n training samples.
        loss: Convex in the parameters.
        l2: Positive, so that F is strictly convex.
        seed: Of no effect.
        tolerance: ||grad F|| to reach.
        max_iterations: Of L-BFGS.
        trained: Names of the parameters, or of the modules, that are trained; None means all.
        on_progress: Told the fraction done.

    Raises:
        NumericalError: The tolerance is not reached.
    """
    device = next(module.parameters()).device
    whole = Objective(module, loss, l2, device=device, dtype=torch.float64, trained=trained)
    objective, prepared = _on_features(whole, samples)
    theta = objective.theta()
    norm = start = _norm(objective, theta, prepared)

    def report() -> None:
        if on_progress is not None:
            on_progress(_fraction_done(norm, start, tolerance))

    if norm > tolerance:
        theta = _descend(objective, theta, prepared, max(tolerance, HANDOVER_TOLERANCE), max_iterations)
        norm = _norm(objective, theta, prepared)
        report()
    for _ in range(NEWTON_STEPS):
        if not norm > tolerance:
            break
        system = GaussNewton(Restriction(objective, theta, None), prepared).system()
        theta = theta + system.solve(-objective_gradient(objective, theta, prepared), l2).x
        norm = _norm(objective, theta, prepared)
        report()
    if not norm <= tolerance:
        raise NumericalError(
            f"Training stopped at a gradient norm of {norm:.3g}; {tolerance:.3g} is needed.",
            remedy="Raise l2, normalise the inputs, or raise max_iterations.",
        )
    whole.space.write(theta, module)
    return module.eval()


# Keyword arguments are the options that a training record stores.
def fit_minibatch(
    module: nn.Module,
    samples: Samples,
    *,
    loss: LossFunction,
    l2: float,
    seed: int,
    epochs: int = 60,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    settling: int = 0,
    trained: Sequence[str] | None = None,
    on_epoch: Callable[[int], None] | None = None,
    on_progress: Progress | None = None,
) -> nn.Module:
    """Minimise F by Adam on shuffled batches, the learning rate falling to 0 along a half cosine.

    The L2 term is part of the loss (not decoupled weight decay), so that a minimiser is one of F. Computes in the
    module's dtype.

    Args:
        module: Trained in place.
        samples: The n training samples.
        loss: (outputs (b, ...), labels (b, ...)) -> losses (b,).
        l2: Coefficient of (l2/2) ||w||^2.
        seed: Of the shuffling and of any dropout.
        epochs: At least 1.
        batch_size: b, at least 1.
        learning_rate: Of the first step.
        settling: How many of the last epochs run in evaluation mode, with normalisation statistics fixed and dropout
            off; F is defined so, and only then does training end near a minimiser of it.
        trained: Names of the parameters, or of the modules, that are trained; None means all.
        on_epoch: Called with the number of each epoch done, 1 to `epochs`.
        on_progress: Told the fraction of epochs done.

    Raises:
        ConfigurationError: An option is out of its range.
        NumericalError: Training diverges.
    """
    _check_options(epochs, batch_size, learning_rate, settling)
    first = next(module.parameters())
    prepared = samples.to(first.device, first.dtype)
    names = ParameterSpace.of(module, trained).names
    parameters = [parameter for name, parameter in module.named_parameters() if name in set(names)]
    descent = _Descent(module, loss, l2, parameters, learning_rate, epochs * math.ceil(len(prepared) / batch_size))
    shuffling = torch.Generator().manual_seed(seed)
    _train_mode(module, names)
    with seeded(seed), _without_gradients(module, names):
        for epoch in range(1, epochs + 1):
            if epoch > epochs - settling:
                module.eval()
            order = torch.randperm(len(prepared), generator=shuffling).to(first.device)
            for batch in prepared.select(order).batches(batch_size):
                value = descent.step(batch)
            _check_value(float(value), epoch, learning_rate)
            if on_epoch is not None:
                on_epoch(epoch)
            if on_progress is not None:
                on_progress(epoch / epochs)
    return module.eval()


class _Descent:
    """Adam on F of one batch after another, its learning rate falling to 0 over `steps` of them."""

    def __init__(
        self,
        module: nn.Module,
        loss: LossFunction,
        l2: float,
        parameters: Sequence[nn.Parameter],
        learning_rate: float,
        steps: int,
    ) -> None:
        self._module, self._loss, self._l2, self._parameters = module, loss, l2, parameters
        self._optimiser = torch.optim.Adam(parameters, lr=learning_rate)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, T_max=steps)

    def step(self, batch: Samples) -> Tensor:
        """Move the parameters by one batch; F of it before, a scalar."""
        self._optimiser.zero_grad()
        nothing = self._parameters[0].new_zeros(())
        penalty = sum((parameter.square().sum() for parameter in self._parameters), start=nothing)
        value = self._loss(self._module(batch.inputs), batch.labels).mean() + 0.5 * self._l2 * penalty
        value.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._schedule.step()
        return value.detach()


def _train_mode(module: nn.Module, trained: Sequence[str]) -> None:
    """Training mode, but for modules whose parameters are all frozen: their statistics stay, their dropout is off."""
    module.train()
    for path, part in module.named_modules():
        own = [f"{path}.{name}" if path else name for name, _ in part.named_parameters()]
        if own and not set(own) & set(trained):
            part.eval()


def _fraction_done(norm: float, start: float, tolerance: float) -> float:
    """Convergence is about linear: the logarithm of the gradient's norm falls at a steady rate."""
    done = math.log(max(norm, tolerance) / start) / math.log(tolerance / start) if start > tolerance else 1.0
    return min(1.0, max(0.0, done))


def _check_options(epochs: int, batch_size: int, learning_rate: float, settling: int) -> None:
    """ConfigurationError where an option is out of its range."""
    if epochs < 1 or batch_size < 1 or not learning_rate > 0:
        raise ConfigurationError(
            f"epochs = {epochs}, batch_size = {batch_size}, learning_rate = {learning_rate}: all must be positive.",
            remedy="Leave them out for the defaults.",
        )
    if not 0 <= settling <= epochs:
        raise ConfigurationError(f"settling is {settling} of {epochs} epochs.", remedy="Use 0 to epochs.")


def _check_value(value: float, epoch: int, learning_rate: float) -> None:
    """NumericalError where F is not finite after an epoch."""
    if not math.isfinite(value):
        raise NumericalError(
            f"Training diverged in epoch {epoch}: the objective is {value}.",
            remedy=f"Lower the learning rate (now {learning_rate}), or normalise the inputs.",
        )


@contextmanager
def _without_gradients(module: nn.Module, trained: Sequence[str]) -> Iterator[None]:
    """No gradients for frozen parameters, so that none are computed through them; put back afterwards."""
    named = module.named_parameters()
    frozen = [parameter for name, parameter in named if name not in set(trained) and parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def _on_features(objective: Objective, samples: Samples) -> tuple[Objective, Samples]:
    """The head alone where its features fit into memory, else everything; samples prepared."""
    own, features = on_head(objective, samples)
    return (own, own.prepare(features)) if isinstance(features, Samples) else (objective, objective.prepare(samples))


def _descend(objective: Objective, start: Tensor, samples: Samples, tolerance: float, iterations: int) -> Tensor:
    """L-BFGS from `start` until no gradient component exceeds tolerance / sqrt(d), or the line search gives up."""
    theta = start.clone().requires_grad_(True)
    chunk = pass_chunk(objective, samples)
    optimiser = torch.optim.LBFGS(
        [theta],
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=50,
        tolerance_grad=tolerance / math.sqrt(objective.space.d),
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        value = float(objective.penalty(theta.detach()))
        gradient = objective.l2 * theta.detach()
        for batch in samples.batches(chunk):
            part = objective.losses(theta, batch).sum() / len(samples)
            gradient += torch.autograd.grad(part, theta)[0]
            value += float(part.detach())
        theta.grad = gradient
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return theta.detach()


def _norm(objective: Objective, theta: Tensor, samples: Samples) -> float:
    """||grad F||."""
    return float(objective_gradient(objective, theta, samples).norm())
