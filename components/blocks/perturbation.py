"""Random copies of one input, to see what the network's parts know about it.

Axes: N copies, T tokens, k replaced tokens, V tokens of the vocabulary.

Mehta et al., CVPR 2022 (arXiv 2204.07655): the loss and the activations are watched while the input is moved a little.
Continuous inputs get Gaussian noise. Tokens have no small distances: some of them are replaced.

Copies are drawn one after another, on the CPU, so that a seed means the same copies on every device, in every dtype,
and however many are drawn at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError

PERTURBATIONS = 1000
"""N, the number of copies: the paper's default."""

SIGMA = 0.1
"""Standard deviation of the noise, in the units of normalised inputs: the paper's default."""

_NORMALS = 16
"""Normal numbers that torch makes together."""


class Perturbation(Protocol):
    """A way to draw copies of one input."""

    def copies(self, sample: Tensor, *, count: int, generator: torch.Generator) -> Tensor:
        """The generator's next copies of one input. Drawing a, then b copies gives those of drawing a + b.

        Args:
            sample: (...), one input.
            count: how many.
            generator: one of the CPU.

        Returns:
            (count, ...) on the sample's device and in its dtype.

        Raises:
            ConfigurationError: the input is not of the kind that this perturbation moves.
        """
        ...


@dataclass(frozen=True)
class GaussianPerturbation:
    """Copies of a continuous input, each `sample + sigma * standard normal noise`.

    Attributes:
        sigma: standard deviation, in the units of normalised inputs.

    Raises:
        ConfigurationError: sigma is not positive and finite.
    """

    sigma: float = SIGMA

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise ConfigurationError(
                f"sigma is {self.sigma}; a positive, finite sigma is needed.",
                remedy=f"The method's default is {SIGMA}.",
            )

    def copies(self, sample: Tensor, *, count: int, generator: torch.Generator) -> Tensor:
        """As `Perturbation.copies`; the noise is float64. ConfigurationError where the input is not continuous."""
        if not sample.is_floating_point():
            raise ConfigurationError(
                f"Inputs have dtype {sample.dtype}; Gaussian noise needs continuous inputs.",
                remedy="Decode and normalise the inputs to floating point, or replace tokens instead.",
            )
        # Normal numbers are made sixteen at a time: a copy's own begin at a multiple, however many are drawn.
        width = -(-sample.numel() // _NORMALS) * _NORMALS
        noise = torch.empty((count, width), dtype=torch.float64).normal_(generator=generator)
        moved = noise[:, : sample.numel()].view(count, *sample.shape).mul_(self.sigma)
        return sample + moved.to(sample.device, sample.dtype)


@dataclass(frozen=True)
class TokenVocabulary:
    """Which token ids are ordinary: all in [0, V) that are neither special nor padding.

    Attributes:
        size: V.
        special: ids that stand for no word (start, end, mask, unknown).
        padding: the id that is not attended.

    Raises:
        ConfigurationError: fewer than two ids are ordinary, or an id lies outside [0, V).
    """

    size: int
    special: frozenset[int]
    padding: int

    def __post_init__(self) -> None:
        outside = sorted(token for token in self.special | {self.padding} if not 0 <= token < self.size)
        if outside:
            raise ConfigurationError(
                f"Special or padding tokens {outside} are not in a vocabulary of {self.size}.",
                remedy="Give the ids of the tokenizer that the model was trained with.",
            )
        if len(self.ordinary) < 2:
            raise ConfigurationError(
                f"{len(self.ordinary)} of {self.size} tokens are ordinary; replacing one needs another.",
                remedy="List as special only what stands for no word.",
            )

    @cached_property
    def ordinary(self) -> Tensor:
        """The ids, rising, that are neither special nor padding; int64 on the CPU."""
        keep = torch.ones(self.size, dtype=torch.bool)
        keep[[*self.special, self.padding]] = False
        return keep.nonzero().flatten()


@dataclass(frozen=True)
class TokenPerturbation:
    """Copies of a token sequence, each with k of its attended ordinary tokens replaced.

    Which tokens are replaced is drawn anew for each copy, without repetition; what replaces them, uniformly from the
    other ordinary tokens. Where a sequence has fewer than k ordinary tokens, all of them are replaced. Special and
    padding tokens stay.

    Attributes:
        vocabulary: which tokens are ordinary.
        replacements: k.

    Raises:
        ConfigurationError: k is below 1.
    """

    vocabulary: TokenVocabulary
    replacements: int

    def __post_init__(self) -> None:
        if self.replacements < 1:
            raise ConfigurationError(
                f"replacements is {self.replacements}; at least one token must be replaced.", remedy="Use 1 or 2."
            )

    def copies(self, sample: Tensor, *, count: int, generator: torch.Generator) -> Tensor:
        """As `Perturbation.copies`, for a sample (T,) of int64 token ids.

        Raises:
            ConfigurationError: the input is not such a sequence, holds ids outside the vocabulary, or has no ordinary
                token.
        """
        ordinary = self.vocabulary.ordinary
        tokens = self._tokens(sample)
        places = torch.isin(tokens, ordinary).nonzero().flatten()
        if len(places) == 0:
            raise ConfigurationError(
                f"The sequence of {len(tokens)} tokens has no ordinary token that could be replaced.",
                remedy="Leave out sequences of special and padding tokens alone, or check the vocabulary.",
            )
        ranks = torch.searchsorted(ordinary, tokens)
        replaced = min(self.replacements, len(places))
        # Of each copy, a number for each place, the least of which are replaced, and one for each new token.
        uniform = torch.rand((count, len(places) + replaced), dtype=torch.float64, generator=generator)
        chosen = places[uniform[:, : len(places)].topk(replaced, largest=False).indices]
        drawn = (uniform[:, len(places) :] * (len(ordinary) - 1)).long()
        # Ranks from the present token's on move up by one, so that it is never drawn.
        new = ordinary[drawn + (drawn >= ranks[chosen])]
        return tokens.repeat(count, 1).scatter_(1, chosen, new).to(sample.device)

    def _tokens(self, sample: Tensor) -> Tensor:
        if sample.dtype is not torch.int64 or sample.ndim != 1:
            raise ConfigurationError(
                f"Inputs have dtype {sample.dtype} and shape {tuple(sample.shape)}; replacing tokens needs one "
                "sequence of int64 token ids.",
                remedy="Encode the text to token ids, or use Gaussian noise for continuous inputs.",
            )
        tokens = sample.cpu()
        if bool(((tokens < 0) | (tokens >= self.vocabulary.size)).any()):
            raise ConfigurationError(
                f"The sequence holds token ids from {int(tokens.min())} to {int(tokens.max())}; the vocabulary has "
                f"{self.vocabulary.size}.",
                remedy="Give the vocabulary of the tokenizer that encoded it.",
            )
        return tokens


def gaussian_copies(
    sample: Tensor, *, count: int = PERTURBATIONS, sigma: float = SIGMA, generator: torch.Generator
) -> Tensor:
    """Copies of one continuous input, as `GaussianPerturbation` draws them.

    Args:
        sample: (...), floating point.
        count: N, at least 2.
        sigma: standard deviation of the noise.
        generator: one of the CPU.

    Returns:
        (N, ...).

    Raises:
        ConfigurationError: the input is not continuous, sigma is not positive and finite, or there are fewer than 2
            copies.
    """
    perturbation = GaussianPerturbation(sigma)
    check_count(count)
    return perturbation.copies(sample, count=count, generator=generator)


def replaced_tokens(
    sample: Tensor,
    *,
    count: int = PERTURBATIONS,
    replacements: int,
    vocabulary: TokenVocabulary,
    generator: torch.Generator,
) -> Tensor:
    """Copies of a token sequence, as `TokenPerturbation` draws them.

    Args:
        sample: (T,) int64 token ids.
        count: N, at least 2.
        replacements: k, tokens replaced in each copy.
        vocabulary: which tokens are ordinary.
        generator: one of the CPU.

    Returns:
        (N, T) int64.

    Raises:
        ConfigurationError: as `TokenPerturbation`, or there are fewer than 2 copies.
    """
    perturbation = TokenPerturbation(vocabulary, replacements)
    check_count(count)
    return perturbation.copies(sample, count=count, generator=generator)


def check_count(count: int) -> None:
    """ConfigurationError for fewer copies than can be compared."""
    if count < 2:
        raise ConfigurationError(
            f"perturbations = {count}; at least 2 copies are needed.",
            remedy=f"The method's default is {PERTURBATIONS}.",
        )
