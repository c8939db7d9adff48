"""A surrogate: a throw-away model, trained briefly on the retained samples alone, that shows what retraining would say.

Axes: n training samples, m of them removed, n - m retained, d trained parameters.

It starts between the original weights w0 and a fresh initialisation, w_s = a w0 + (1 - a) w_init, and runs for an epoch
or two at a high rate that falls to 0: near enough to the original to learn fast, far enough from it to have lost what
it knew of single samples. What it says is calibrated to the original model before it is used (`targets`). Trained from
a fresh initialisation (a = 0) it is also the auditor of `gate.acceptance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oubli.components.errors import ConfigurationError
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.seeding import seeded
from oubli.components.model.state import ModelState, buffers_of, in_training_mode, moving_buffers, write_buffers
from oubli.components.progress import Progress
from oubli.components.removal.descent import Checkpoints, Descent, Optimiser, cosine


@dataclass(frozen=True)
class TrainingSettings:
    """How the original model was trained.

    Attributes:
        optimiser: SGD with `momentum`, or Adam.
        peak_rate: The highest learning rate that training used.
        batch_size: Samples of a batch.
        epochs: Passes over the samples.
        momentum: Of SGD.
    """

    optimiser: Optimiser
    peak_rate: float
    batch_size: int
    epochs: int
    momentum: float = 0.9

    def __post_init__(self) -> None:
        positive = math.isfinite(self.peak_rate) and self.peak_rate > 0 and self.batch_size > 0 and self.epochs > 0
        if not positive or not 0 <= self.momentum < 1:
            raise ConfigurationError(
                f"peak_rate {self.peak_rate}, batch_size {self.batch_size}, epochs {self.epochs}, momentum "
                f"{self.momentum}: the first three must be positive, the last at least 0 and below 1.",
                remedy="Give the settings that the original model was trained with.",
            )


@dataclass(frozen=True)
class SurrogatePlan:
    """How the surrogate is trained.

    The start is the project's method, section 8, step 1. Epochs, batch and rate were chosen on one small image network
    (Fashion-MNIST, mislabelled and random samples): two epochs of training's own batches come nearer to retraining
    than one of smaller batches, at equal cost. At 1.5 times training's rate a backdoor is gone from the surrogate
    (success .06 and .04, retrained .03), at its own rate not quite (.12 and .07).

    Attributes:
        training: The original model's settings: optimiser, peak rate and batch size follow from them.
        kept: a, the share of the original weights in the start. 0 where the removed samples may share a trigger: with
            0.8, a backdoor survived in the surrogate.
        epochs: Passes over the retained samples at most.
        most_samples: Samples seen at most, whatever the epochs: of a large set, a part teaches enough.
        batch_size: The largest batch; training's own where that is smaller.
        rate_factor: The surrogate's peak rate in units of training's.
        warm_up: Steps over which the rate rises to its peak; half of all steps where there are fewer than twice as
            many.
    """

    training: TrainingSettings
    kept: float = 0.4
    epochs: int = 2
    most_samples: int = 20_000
    batch_size: int = 128
    rate_factor: float = 1.5
    warm_up: int = 20

    def __post_init__(self) -> None:
        counts = self.batch_size >= 1 and self.most_samples >= 1 and self.warm_up >= 0
        if not (0 <= self.kept <= 1 and counts and self.rate_factor > 0):
            raise ConfigurationError(
                f"kept {self.kept}, most_samples {self.most_samples}, batch_size {self.batch_size}, rate_factor "
                f"{self.rate_factor}, warm_up {self.warm_up}: kept lies between 0 and 1, the others are positive "
                f"(warm_up may be 0).",
                remedy="Leave them out for the defaults.",
            )
        if not 1 <= self.epochs < self.training.epochs:
            raise ConfigurationError(
                f"A surrogate of {self.epochs} epochs where training took {self.training.epochs}.",
                remedy="Use at least 1 and fewer than training; where those are too few, retrain.",
            )

    def batches(self, n: int) -> list[int]:
        """Sizes of the batches of one pass over n samples."""
        return _sizes(n, min(self.batch_size, self.training.batch_size))

    def steps(self, n: int) -> int:
        """Steps that the surrogate takes on n samples."""
        batches = self.batches(n)
        return min(self.epochs * len(batches), math.ceil(self.most_samples / max(batches)))

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0, 1, ... of `steps`: linear to the peak, then along a half cosine to 0."""
        peak, rising = self.rate_factor * self.training.peak_rate, min(self.warm_up, steps // 2)
        return peak * ((step + 1) / rising if step < rising else cosine(step - rising, steps - rising))


def train_surrogate(
    objective: Objective,
    theta: Tensor,
    fresh: nn.Module,
    retained: Samples,
    plan: SurrogatePlan,
    *,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_progress: Progress | None = None,
) -> ModelState:
    """Train a surrogate on the retained samples, on the objective's device and in its dtype.

    The loss and the L2 term are the objective's; the module runs as in training, dropout on. Frozen parts are the
    objective's. `seed` fixes the order of the samples, and dropout; the global random state is as before.

    Args:
        objective: The original model's; its frozen parts are the surrogate's.
        theta: (d,) w0, the weights of the model as it was trained.
        fresh: The same architecture, freshly initialised: w_init, and the statistics that the surrogate starts with.
        retained: All n - m samples that are left of the training set.
        checkpoints: A unit is an epoch.

    Raises:
        ConfigurationError: No sample is retained, `fresh` is of another architecture, or a state is another run's.
        NonFiniteInput: The weights are not finite.
        NumericalError: Training diverges.
    """
    objective.check(theta)
    if len(retained) == 0:
        raise ConfigurationError("No sample is retained.", remedy="Remove fewer samples; there is nothing to learn.")
    checkpoints = checkpoints or Checkpoints()
    sizes, steps = plan.batches(len(retained)), plan.steps(len(retained))
    epochs = math.ceil(steps / len(sizes))
    with in_training_mode(objective) as running:
        descent = _start(running, theta, fresh, plan, (seed, steps, len(retained), max(sizes)), seed)
        if checkpoints.resume is not None:
            descent.restore(checkpoints.resume)
        for epoch in range(descent.done // len(sizes) + 1, epochs + 1):
            order = torch.randperm(len(retained), generator=descent.draws).to(retained.inputs.device)
            # Dropout draws from the global generators: a seed for each epoch lets a resumed run draw the same.
            own = int(torch.randint(2**62, (), generator=descent.draws))
            with seeded(own):
                for chosen in torch.split(order, sizes)[: steps - descent.done]:
                    samples = running.prepare(retained.select(chosen))
                    loss = running.losses(descent.values, samples).mean() + running.penalty(descent.values)
                    descent.step(loss, plan.rate(descent.done, steps))
            descent.check_finite("Lower rate_factor, or normalise the inputs.")
            if checkpoints.save is not None and (epoch % checkpoints.every == 0 or epoch == epochs):
                checkpoints.save(descent.state())
            if on_progress is not None:
                on_progress(epoch / epochs)
        return ModelState(descent.values.detach(), buffers_of(running))


def _start(
    running: Objective, theta: Tensor, fresh: nn.Module, plan: SurrogatePlan, identity: tuple[int, ...], seed: int
) -> Descent:
    """At a w0 + (1 - a) w_init, with the fresh module's buffers."""
    state = fresh.state_dict()
    names = moving_buffers(running)
    if not set(names) <= set(state):
        raise ConfigurationError(
            f"The fresh {type(fresh).__name__} lacks buffers of the model.", remedy="Build it by the model's factory."
        )
    write_buffers(running.module, {name: state[name] for name in names})
    initial = running.space.flatten({name: value.detach() for name, value in fresh.named_parameters()})
    values = torch.lerp(initial.to(theta), theta, plan.kept).requires_grad_(True)
    buffers = dict(running.module.named_buffers())
    return Descent(
        values,
        _optimiser(values, plan.training),
        {name: buffers[name] for name in names},
        torch.Generator().manual_seed(seed),
        identity,
    )


def _optimiser(values: Tensor, training: TrainingSettings) -> torch.optim.Optimizer:
    match training.optimiser:
        case Optimiser.SGD:
            return torch.optim.SGD([values], lr=0.0, momentum=training.momentum)
        case Optimiser.ADAM:
            return torch.optim.Adam([values], lr=0.0)


def _sizes(n: int, batch_size: int) -> list[int]:
    """Sizes of an epoch's batches. A last one of a single sample, which has no spread to normalise by, is joined."""
    sizes = [batch_size] * (n // batch_size) + [n % batch_size] * (n % batch_size > 0)
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes
