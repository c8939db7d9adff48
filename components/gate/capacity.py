"""How many samples updates may remove from one trained model, and the noise that hides what they leave.

Axes: n training samples, m of them removed since training, over all versions; d parameters; C classes.

Sekhari et al., NeurIPS 2021, Algorithm 1 (unlearning) and Lemma 3. F is the mean of f(w, z) = loss + (l2/2) ||w||^2,
each f l2-strongly convex, L-Lipschitz, with an M-Lipschitz Hessian. Then the Newton removal of m samples ends within

    gamma = 2 M L^2 m^2 / (l2^3 n^2)

of the model trained without them, and noise N(0, sigma^2 I) with

    sigma = (gamma / epsilon) sqrt(2 ln(1.25 / delta))

makes the two (epsilon, delta)-indistinguishable. The Gaussian mechanism's constant is proven for epsilon <= 1 (Dwork
and Roth 2014, appendix A). m is every sample removed since training: gamma grows with m^2, so that the steps of a chain
together are at least covered by one of their total. Each step starts from weights without noise; noise is added to
what leaves, not to what the next step starts from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError
from oubli.components.gate.smoothness import Smoothness, check_not_negative


@dataclass(frozen=True)
class PrivacyTarget:
    """(epsilon, delta) of Sekhari et al. 2021, definition 2.

    Raises:
        ConfigurationError: unless 0 < epsilon < infinity and 0 < delta < 1.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < math.inf:
            raise ConfigurationError(
                f"epsilon is {self.epsilon}; it must be positive and finite.", remedy="Use 1, or less for more privacy."
            )
        if not 0 < self.delta < 1:
            raise ConfigurationError(
                f"delta is {self.delta}; it must lie between 0 and 1.", remedy="Use less than 1/n, such as 1e-5."
            )


@dataclass(frozen=True)
class Assumptions:
    """Which of the theorem's conditions hold for a model and its update; what is not known to hold is False.

    Attributes:
        convex: the loss is convex in the trained parameters.
        smoothness_proven: L and M are bounds, not estimates.
        at_minimum: every step started from a minimiser of the objective that the model was trained on.
        all_parameters: the step moved all of them, not a block.
        exact_curvature: the step was solved with the Hessian of the retained samples (for a linear model with
            cross-entropy, the generalised Gauss-Newton matrix), undamped.
    """

    convex: bool
    smoothness_proven: bool
    at_minimum: bool
    all_parameters: bool
    exact_curvature: bool


@dataclass(frozen=True)
class CapacityStatement:
    """What can be said after `removed` samples in all.

    Attributes:
        target: (epsilon, delta).
        removed: m, since training.
        capacity: how many may be removed in all with noise of at most `max_noise`.
        gamma: the distance bound.
        sigma: the standard deviation of the noise that `gamma` needs.
        max_noise: the largest standard deviation that the model bears.
        noise: the standard deviation of the noise that was added.
        unmet: a sentence for each condition that does not hold; with none, (epsilon, delta) is a guarantee, otherwise
            it is a stated target.
    """

    target: PrivacyTarget
    removed: int
    capacity: int
    gamma: float
    sigma: float
    max_noise: float
    noise: float
    unmet: tuple[str, ...]

    @property
    def guarantee(self) -> bool:
        """Every condition holds."""
        return not self.unmet

    @property
    def spent(self) -> bool:
        """More was removed than the capacity allows."""
        return self.removed > self.capacity

    @property
    def sentence(self) -> str:
        """In words, for a record or a certificate."""
        pair = f"({self.target.epsilon:g}, {self.target.delta:g})"
        if self.guarantee:
            return f"{pair} is a guarantee: every condition of the theorem holds."
        return f"{pair} is a stated target, not a guarantee: {' '.join(self.unmet)}"


@dataclass(frozen=True)
class DeletionCapacity:
    """The accountant of one trained model and all versions that come from it by removals.

    Attributes:
        target: (epsilon, delta).
        smoothness: L and M.
        strong_convexity: l2. Where it is 0 nothing bounds the distance, and the capacity is 0.
        samples: n, at training.
        max_noise: the largest standard deviation of noise that the model bears (`relative_noise` makes one from the
            weights).

    Raises:
        ConfigurationError: `strong_convexity` or `max_noise` is negative or not finite, or `samples` is below 1.
    """

    target: PrivacyTarget
    smoothness: Smoothness
    strong_convexity: float
    samples: int
    max_noise: float

    def __post_init__(self) -> None:
        check_not_negative("strong_convexity", self.strong_convexity)
        check_not_negative("max_noise", self.max_noise)
        if self.samples < 1:
            raise ConfigurationError(
                f"samples is {self.samples}; at least 1 is needed.", remedy="Give n, the number trained on."
            )

    def gamma(self, removed: int) -> float:
        """The bound on ||w- - w_R|| after `removed` samples in all; 0 for none, infinite where l2 is 0."""
        self._check_removed(removed)
        if removed == 0:
            return 0.0
        if self.strong_convexity == 0:
            return math.inf
        share = removed / self.samples
        numerator = 2 * self.smoothness.hessian_lipschitz * self.smoothness.lipschitz**2 * share**2
        # Divided one at a time: the cube of a small l2 underflows.
        return numerator / self.strong_convexity / self.strong_convexity / self.strong_convexity

    def sigma(self, removed: int) -> float:
        """The standard deviation of the noise that `removed` samples in all need."""
        return noise_scale(self.gamma(removed), self.target)

    @property
    def capacity(self) -> int:
        """The most samples that may be removed in all with sigma <= max_noise; at most n - 1."""
        low, high = 0, self.samples  # sigma(low) is within max_noise; high is not allowed
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.sigma(middle) <= self.max_noise else (low, middle)
        return low

    def remaining(self, removed_before: int) -> int:
        """How many more may be removed after `removed_before`."""
        self._check_removed(removed_before)
        return max(0, self.capacity - removed_before)

    def spent(self, removed: int) -> bool:
        """Whether `removed` samples in all are more than the capacity."""
        self._check_removed(removed)
        return removed > self.capacity

    def statement(self, removed: int, assumptions: Assumptions, *, noise: float = 0.0) -> CapacityStatement:
        """What holds after a removal.

        Args:
            removed: m, samples removed in all since training.
            assumptions: which conditions hold.
            noise: the standard deviation of the noise that was added to the weights.

        Raises:
            ConfigurationError: `removed` is not from 0 to n - 1, or `noise` is negative or not finite.
        """
        check_not_negative("noise", noise)
        sigma = self.sigma(removed)
        return CapacityStatement(
            target=self.target,
            removed=removed,
            capacity=self.capacity,
            gamma=self.gamma(removed),
            sigma=sigma,
            max_noise=self.max_noise,
            noise=noise,
            unmet=self._unmet(assumptions, sigma, noise),
        )

    def _unmet(self, assumptions: Assumptions, sigma: float, noise: float) -> tuple[str, ...]:
        conditions = {
            "The loss is not convex in the trained parameters.": assumptions.convex,
            "There is no strong convexity: l2 is 0.": self.strong_convexity > 0,
            "The Lipschitz constants of the loss and its Hessian are estimates, not bounds.": (
                assumptions.smoothness_proven
            ),
            "The model was not at a minimum of its training objective.": assumptions.at_minimum,
            "Only a block of the parameters was updated.": assumptions.all_parameters,
            "The step was not solved with the exact, undamped curvature.": assumptions.exact_curvature,
            f"epsilon = {self.target.epsilon:g} is above 1, where the noise's constant is not proven.": (
                self.target.epsilon <= 1
            ),
            f"Noise of {noise:.3g} was added where {sigma:.3g} is needed.": noise >= sigma,
        }
        return tuple(sentence for sentence, holds in conditions.items() if not holds)

    def _check_removed(self, removed: int) -> None:
        if not 0 <= removed < self.samples:
            raise ConfigurationError(
                f"{removed} samples removed of {self.samples}; from 0 to {self.samples - 1} can be.",
                remedy="Count the samples removed since training, over all versions.",
            )


def noise_scale(gamma: float, target: PrivacyTarget) -> float:
    """sigma, the standard deviation that hides a distance gamma: (gamma / epsilon) sqrt(2 ln(1.25 / delta))."""
    return gamma / target.epsilon * math.sqrt(2 * math.log(1.25 / target.delta))


def measured_gamma(retained_gradient: float, l2: float) -> float:
    """||grad F_R(w-)|| / l2, a bound on ||w- - w_R|| that is measured, not foreseen.

    By strong convexity, for any w where F_R is convex in the trained parameters beside its l2 term (Guo et al., ICML
    2020, bound the removal by the same residual). Far tighter than `gamma`, but it depends on the data: noise that is
    scaled by it reveals a little about them.

    Args:
        retained_gradient: ||grad F_R(w-)||.
        l2: the coefficient of F's l2 term.

    Returns:
        The bound; 0 where the gradient is 0, infinite where l2 alone is 0.

    Raises:
        ConfigurationError: an argument is negative or not finite.
    """
    check_not_negative("retained_gradient", retained_gradient)
    check_not_negative("l2", l2)
    if retained_gradient == 0:
        return 0.0
    return retained_gradient / l2 if l2 else math.inf


def relative_noise(share: float, theta: Tensor) -> float:
    """The standard deviation at which noise on all d weights has a share of their norm: share ||theta|| / sqrt(d).

    Args:
        share: of the norm; not negative.
        theta: (d,) weights.

    Raises:
        ConfigurationError: the share is negative or not finite.
    """
    check_not_negative("share", share)
    return share * float(torch.linalg.vector_norm(theta, dtype=torch.float64)) / math.sqrt(theta.numel())


def noisy(theta: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """theta + N(0, sigma^2 I).

    Drawn in float64 on the CPU, so that a seed means the same noise everywhere.

    Args:
        theta: (d,) weights.
        sigma: standard deviation of the noise.
        generator: one of the CPU.

    Returns:
        (d,) in the dtype and on the device of `theta`; a copy where sigma is 0.

    Raises:
        ConfigurationError: sigma is negative or not finite.
    """
    check_not_negative("sigma", sigma)
    if sigma == 0:
        return theta.clone()
    noise = torch.randn(theta.shape, dtype=torch.float64, generator=generator)
    return theta + (sigma * noise).to(theta.device, theta.dtype)
