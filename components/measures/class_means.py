"""Accuracy for embeddings: the share of samples that lie nearest to their own class's mean (Mensink et al., *Distance-
based image classification: generalizing to new classes at near-zero cost*, PAMI 2013).

It is for losses whose outputs name no class, and does not change where all embeddings turn together, as those of two
trainings do: a distance from one model's embedding to another's would say nothing.

Axes: b samples of a batch, K classes, E elements of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from oubli.components.model.chunking import pass_chunk
from oubli.components.model.objective import Objective
from oubli.components.model.samples import SampleSource

_EXACT = "donot_use_mm_for_euclid_dist"  # the other way loses digits


def class_mean_accuracies(
    objective: Objective, theta: Tensor, reference: SampleSource, sets: Mapping[str, SampleSource | None]
) -> dict[str, float]:
    """The share of each set that lies nearest to its own class's mean over `reference`.

    Args:
        objective: The model; its loss is from elsewhere.
        theta: (d,) weights.
        reference: The samples that the means are taken over, those that the model keeps.
        sets: By name; those that are missing or empty are left out.

    Returns:
        By name; empty where the loss is Oubli's own, or where outputs are no vectors or labels no classes.
    """
    if objective.kind is not None:
        return {}
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = {}
    for outputs, labels in _embedded(objective, theta, reference):
        if outputs.ndim != 2 or labels.ndim != 1 or labels.is_floating_point():
            return {}
        for label in set(labels.tolist()):
            own = outputs[labels == label]
            sums[label] = sums.get(label, torch.zeros(outputs.shape[1], dtype=torch.float64)) + own.sum(0)
            counts[label] = counts.get(label, 0) + len(own)
    classes = torch.tensor(sorted(sums))
    means = torch.stack([sums[label] / counts[label] for label in sorted(sums)])
    present = {name: source for name, source in sets.items() if source is not None and len(source) > 0}
    return {name: _share(objective, theta, source, classes, means) for name, source in present.items()}


def _share(objective: Objective, theta: Tensor, source: SampleSource, classes: Tensor, means: Tensor) -> float:
    right = 0
    for outputs, labels in _embedded(objective, theta, source):
        right += int((classes[torch.cdist(outputs, means, compute_mode=_EXACT).argmin(1)] == labels).sum())
    return right / len(source)


def _embedded(objective: Objective, theta: Tensor, source: SampleSource) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs (b, E) float64 and labels (b,) on the CPU."""
    parameters = objective.space.unflatten(theta)
    with torch.no_grad():
        for batch in source.batches(pass_chunk(objective, source)):
            samples = objective.prepare(batch)
            yield objective.outputs(parameters, samples.inputs).to("cpu", torch.float64), samples.labels.cpu()
