"""Which slices L-FOCI selects for a sample: three sets of candidates, four responses.

Axes: N copies, p slices, d parameters.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.blanket.problem import OUTPUT_LAYER
from oubli.components.blocks.activations import record_activations, recordable
from oubli.components.blocks.perturbation import GaussianPerturbation
from oubli.components.blocks.slices import Slice, SliceMap, find_slices
from oubli.components.lfoci import l_foci
from oubli.components.model.gradients import gradient_sum
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples


class Response(StrEnum):
    """What the slices are to explain."""

    LOSS = "loss"
    MARGIN = "margin"
    """The logarithm of the label's odds against the likeliest other class."""
    ALIGNMENT = "alignment"
    """The inner product of the copy's loss gradient with the sample's own, of norm 1."""
    FEATURE = "feature"
    """The distance of the last features from the sample's own."""


class Candidates(StrEnum):
    """What is chosen among; layer by layer, by one selection in each."""

    ALL = "all slices"
    HIDDEN = "without output layer"
    BY_LAYER = "layer by layer"


@dataclass(frozen=True)
class Record:
    """One sample's copies: activations (N, p), each response (N,), and CPU seconds of drawing and recording."""

    activations: NDArray[np.float64]
    responses: Mapping[Response, NDArray[np.float64]]
    seconds: float


@dataclass(frozen=True)
class Selector:
    """Selections on one model."""

    objective: Objective
    theta: Tensor
    slices: SliceMap

    @classmethod
    def of(cls, objective: Objective, inputs: Tensor) -> Selector:
        theta = objective.theta()
        found = find_slices(objective.module, objective.space)
        return cls(objective, theta, recordable(objective, theta, found, inputs))

    def record(self, sample: Samples, count: int, seed: int) -> Record:
        started = time.process_time()
        generator = torch.Generator().manual_seed(seed)
        drawn = GaussianPerturbation().copies(sample.inputs[0], count=count, generator=generator)
        copies = Samples(drawn, sample.labels.expand(count))
        found = record_activations(self.objective, self.theta, self.slices, copies)
        seconds = time.process_time() - started
        margins, distances = self._outputs(sample, copies)
        responses = {
            Response.LOSS: found.losses,
            Response.MARGIN: margins,
            Response.ALIGNMENT: self._alignments(sample, copies),
            Response.FEATURE: distances,
        }
        return Record(found.activations, responses, seconds)

    def select(
        self, record: Record, response: Response, candidates: Candidates, *, seed: int, copies: int | None = None
    ) -> tuple[int, ...]:
        """Positions of the chosen slices among all p."""
        layers = np.array([one.module for one in self.slices.slices])
        match candidates:
            case Candidates.ALL:
                groups = [np.arange(len(layers))]
            case Candidates.HIDDEN:
                groups = [(layers != OUTPUT_LAYER).nonzero()[0]]
            case Candidates.BY_LAYER:
                groups = [(layers == layer.module).nonzero()[0] for layer in self.slices.layers]
        chosen: list[int] = []
        for group in groups:
            found = l_foci(
                record.activations[:copies, group],
                record.responses[response][:copies],
                generator=np.random.default_rng(seed),
                threads=1,
            )
            chosen += [int(group[column]) for column in found.order]
        return tuple(chosen)

    def chosen(self, positions: set[int] | tuple[int, ...]) -> tuple[Slice, ...]:
        return tuple(self.slices.slices[position] for position in sorted(positions))

    def _outputs(self, sample: Samples, copies: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Margins and distances of features."""
        module = self.objective.module
        assert isinstance(module, nn.Sequential)
        features_of, head = module[:-1], module[-1]
        with torch.no_grad():
            features = torch.cat([features_of(one) for one in torch.split(copies.inputs, 100)])
            logits = head(features).double()
            distances = torch.linalg.vector_norm(features - features_of(sample.inputs), dim=1)
        label = int(sample.labels[0])
        others = logits.clone()
        others[:, label] = -torch.inf
        return (logits[:, label] - others.amax(1)).numpy(), distances.double().numpy()

    def _alignments(self, sample: Samples, copies: Samples) -> NDArray[np.float64]:
        own = gradient_sum(self.objective, self.theta, sample)
        direction = own / own.norm().clamp_min(torch.finfo(own.dtype).tiny)
        found = []
        for batch in copies.batches(250):

            def losses(weights: Tensor, batch: Samples = batch) -> Tensor:
                return self.objective.losses(weights, batch)

            found.append(torch.func.jvp(losses, (self.theta,), (direction,))[1].detach())
        return torch.cat(found).double().numpy()
