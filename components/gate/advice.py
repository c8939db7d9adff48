"""What removals from a model can expect, as far as can be told when it is registered."""

from __future__ import annotations

from dataclasses import dataclass

FEW_HELD_OUT = 200
"""Below this, a fall of accuracy by a few points is within the standard error of a comparison."""

SETTLED = 1e-3
"""Of the weights' norm: a convex model within this bound of its minimiser has settled there."""


@dataclass(frozen=True)
class ModelFacts:
    """What a registration has found out.

    Attributes:
        convex: The objective is convex in what is trained.
        named_loss: The loss is one whose outputs have a calibration: cross_entropy, bce_with_logits or mse.
        predicts: The loss has a predictive distribution, which auditors judge by: the first two of these.
        validation: The data has a split that is held out beside the test split.
        held_out: Test samples.
        one_by_one: vmap cannot run the model or its loss, so that per-sample gradients take a pass each.
        relative_bound: ||grad F|| / l2 over ||w||, how far a convex model may be from its minimiser; None elsewhere.
    """

    convex: bool
    named_loss: bool
    predicts: bool
    validation: bool
    held_out: int
    one_by_one: bool = False
    relative_bound: float | None = None


def advice(facts: ModelFacts) -> tuple[str, ...]:
    """Sentences for who is going to remove samples from the model; the first says how."""
    found = _convex(facts) if facts.convex else _network(facts)
    if not facts.named_loss:
        found.append(
            "Under a loss of its own, the accuracy and the divergence of predictions have no meaning and are left out; "
            "where outputs are embeddings of classes, figures say how many lie nearest to their own class's mean."
        )
    if facts.one_by_one:
        found.append(
            "torch's vmap cannot run the model or its loss: each sample takes a pass of its own, more slowly, to the "
            "same figures."
        )
    if facts.held_out < FEW_HELD_OUT:
        found.append(
            f"There are {facts.held_out} test samples: a fall of accuracy by less than several points cannot be told "
            "from chance, and is not refused."
        )
    return tuple(found)


def _convex(facts: ModelFacts) -> list[str]:
    found = ["Removals end at the minimiser without the samples, by Newton steps, and are exact to rounding."]
    if facts.relative_bound is None:
        found.append("Without l2 nothing bounds the distance to retraining: removals are judged by their gradient.")
    elif facts.relative_bound > SETTLED:
        found.append(
            "Training stopped short of the minimiser, which removals then go to: their predictions also change by what "
            "was left of training."
        )
    return found


def _network(facts: ModelFacts) -> list[str]:
    if not facts.named_loss:
        return [
            "Its loss is its own: outputs have no calibration, so that removals by matching and auditors are not "
            "possible. Removals by a Newton step are accepted only beside a retrained model (compare_with_retraining); "
            "else retrain."
        ]
    found = ["Removals are by matching."]
    if not facts.predicts:
        found.append(
            "Auditors cannot judge its loss: removals are accepted only beside a retrained model "
            "(compare_with_retraining)."
        )
    if not facts.validation:
        found.append(
            "The data has no validation split: half of the test samples decide, and figures are those of the other "
            "half."
        )
    return found
