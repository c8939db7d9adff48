"""How well the removed samples can be distinguished from samples never trained on.

Axes: m members (removed or retained samples), k others (test samples), b samples of a batch, C classes.

A model gives away who was in its training data by being surer of them (Yeom et al., CSF 2018: a threshold on the loss).
The strength over all thresholds is the area under the curve,

    AUC = P(score of a member > score of another) + P(equal) / 2:

1/2 where the scores tell nothing. A good removal brings it to what a retrained model has, which need not be 1/2 where
the removed samples are easier or harder than the test set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from scipy import stats
from torch import Tensor

from oubli.components.errors import ConfigurationError, NonFiniteInput
from oubli.components.model.chunking import pass_chunk
from oubli.components.model.losses import Loss, log_probabilities
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples, SampleSource


class MembershipScore(StrEnum):
    """What is compared; each is larger where the model is surer."""

    LOSS = "loss"
    """Minus the loss."""

    CONFIDENCE = "confidence"
    """The largest predicted probability; needs no label."""

    ENTROPY = "entropy"
    """Minus the entropy of the prediction, in nats; needs no label."""

    MARGIN = "margin"
    """log p of the label, less the largest log p of another class."""


@dataclass(frozen=True)
class MembershipInference:
    """The strength of membership inference.

    Attributes:
        auc: area under the curve, 0 to 1.
        standard_error: of the AUC as an estimate (Hanley and McNeil 1982); near 0 and 1 it is small however few samples
            there are.
        chance_error: the standard deviation of the AUC of scores that tell nothing, sqrt((m + k + 1) / (12 m k)) (Mann
            and Whitney 1947): 0.29 for m = 1, 0.09 for m = 10. A difference below it says little.
        members: m.
        others: k.
    """

    auc: float
    standard_error: float
    chance_error: float
    members: int
    others: int

    @property
    def error(self) -> float:
        """The larger of both errors: what to read the AUC with."""
        return max(self.standard_error, self.chance_error)


def membership_inference(
    objective: Objective,
    theta: Tensor,
    members: SampleSource,
    others: SampleSource,
    *,
    score: MembershipScore = MembershipScore.LOSS,
) -> MembershipInference | None:
    """How well a model's scores separate the removed (or the retained) samples from a test set.

    Args:
        objective: the module and its loss.
        theta: (d,) weights.
        members: m samples.
        others: k samples that were never trained on.
        score: what is compared.

    Returns:
        The inference; None where the loss has no predictive distribution and the score needs one.

    Raises:
        ConfigurationError: a set is empty.
        NonFiniteInput: a score is NaN.
    """
    first = membership_scores(objective, theta, members, score=score)
    second = membership_scores(objective, theta, others, score=score)
    return None if first is None or second is None else membership_auc(first, second)


def membership_scores(
    objective: Objective, theta: Tensor, source: SampleSource, *, score: MembershipScore = MembershipScore.LOSS
) -> Tensor | None:
    """The score of each sample; the mean over positions where a sample has several.

    Args:
        objective: the module and its loss.
        theta: (d,) weights.
        source: n samples, at least one.
        score: which score.

    Returns:
        (n,) scores, float64 on the CPU; None where the loss has no predictive distribution and the score needs one.

    Raises:
        ConfigurationError: the source is empty.
    """
    parameters = objective.space.unflatten(theta)
    collected = []
    with torch.no_grad():
        for batch in source.batches(pass_chunk(objective, source)):
            samples = objective.prepare(batch)
            outputs = objective.outputs(parameters, samples.inputs)
            if score is MembershipScore.LOSS:
                scores = -objective.loss(outputs, samples.labels)
            else:
                distribution = log_probabilities(objective.kind, outputs)
                if distribution is None:
                    return None
                scores = _surety(distribution.to(torch.float64), objective.kind, samples, score)
            collected.append(scores.to("cpu", torch.float64))
    return torch.cat(collected)


def membership_auc(members: Tensor, others: Tensor) -> MembershipInference:
    """The AUC of the members' scores against the others'; ties count half.

    Args:
        members: (m,) scores, larger meaning surer.
        others: (k,) scores.

    Raises:
        ConfigurationError: one of them is empty.
        NonFiniteInput: a score is NaN.
    """
    m, k = members.numel(), others.numel()
    if not m or not k:
        raise ConfigurationError(
            f"{m} members and {k} others; at least one of each is needed.", remedy="Pass sets that are not empty."
        )
    for name, scores in (("members", members), ("others", others)):
        if bool(scores.isnan().any()):
            raise NonFiniteInput(f"Scores of the {name} are NaN.", remedy="Check the model's weights and inputs.")
    ranks = stats.rankdata(torch.cat([members.flatten(), others.flatten()]).to("cpu", torch.float64).numpy())
    # The ranks' sum counts the pairs with members, too.
    auc = (float(ranks[:m].sum()) - m * (m + 1) / 2) / (m * k)
    return MembershipInference(
        auc=auc,
        standard_error=_standard_error(auc, m, k),
        chance_error=math.sqrt((m + k + 1) / (12 * m * k)),
        members=m,
        others=k,
    )


def _surety(distribution: Tensor, kind: Loss | None, samples: Samples, score: MembershipScore) -> Tensor:
    """(b,) scores from log-probabilities (b, C, ...)."""
    if score is MembershipScore.CONFIDENCE:
        scores = distribution.amax(1).exp()
    elif score is MembershipScore.ENTROPY:
        # A probability that underflows to 0 contributes nothing, whatever its logarithm.
        scores = (distribution.exp() * distribution).nan_to_num(0.0).sum(1)
    else:
        labels = samples.labels
        classes = labels > 0.5 if kind is Loss.BCE_WITH_LOGITS else labels
        chosen = classes.to(torch.int64).reshape(len(distribution), 1, *distribution.shape[2:])
        others = distribution.scatter(1, chosen, -math.inf).amax(1)
        scores = distribution.gather(1, chosen).squeeze(1) - others
    return scores.flatten(1).mean(1) if scores.ndim > 1 else scores


def _standard_error(auc: float, m: int, k: int) -> float:
    """Hanley and McNeil, Radiology 143 (1982), equation 2: scores taken as exponential, in each group."""
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (m - 1) * (first - auc**2) + (k - 1) * (second - auc**2)
    return math.sqrt(max(0.0, variance) / (m * k))
