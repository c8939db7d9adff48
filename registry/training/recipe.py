"""A training record's import strings turned into things that run: the module, its loss, its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from oubli.components.errors import RegistryError, TrainingRecordError
from oubli.components.losses import Loss, LossFunction, loss_function
from oubli.components.reference.training import build_seeded
from oubli.components.samples import Samples
from oubli.registry.settings import Settings
from oubli.registry.training.imports import resolve
from oubli.registry.training.training_record import Precision, TrainingRecord

_DTYPES = {Precision.FLOAT32: torch.float32, Precision.FLOAT64: torch.float64}


@dataclass(frozen=True)
class Recipe:
    """How to build, score and train a model. Made by `of`, which imports under the allow-list."""

    record: TrainingRecord
    loss: LossFunction
    device: str
    _factory: Callable[..., nn.Module]
    _train: Callable[..., nn.Module]

    @classmethod
    def of(cls, record: TrainingRecord, settings: Settings) -> Recipe:
        """Raises FactoryNotAllowed where an import string lies outside the allow-list or names nothing."""
        prefixes = settings.factory_prefixes
        loss = loss_function(record.loss) if isinstance(record.loss, Loss) else resolve(record.loss, prefixes)
        return cls(
            record,
            loss,
            settings.torch_device(),
            resolve(record.factory.target, prefixes),
            resolve(record.retrain.target, prefixes),
        )

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self.record.dtype]

    @property
    def compute_dtype(self) -> torch.dtype:
        """float64 for a convex model, whose update is exact to rounding; else the model's own."""
        return torch.float64 if self.record.convex else self.dtype

    def untrained(self) -> nn.Module:
        """A module fresh from its factory, initialised by the record's seed."""
        try:
            module = build_seeded(lambda: self._factory(**self.record.factory.kwargs), self.record.seed)
        except TypeError as error:
            raise TrainingRecordError(
                f"{self.record.factory.target} does not take the arguments of the training record: {error}.",
                remedy="Correct the factory's arguments in the training record.",
            ) from error
        return module.to(self.dtype)

    def module(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """The module with these weights and buffers. Raises RegistryError where they do not fit the factory."""
        module = self.untrained()
        try:
            module.load_state_dict(dict(weights), strict=True)
        except RuntimeError as error:
            raise RegistryError(
                f"The registered weights do not fit what {self.record.factory.target} builds: {error}",
                remedy="Correct the factory or its arguments in the training record.",
            ) from error
        return module.eval()

    def train(self, samples: Samples, on_progress: Callable[[float], None] | None = None) -> nn.Module:
        """A freshly initialised module trained on `samples`, where the settings compute; returned on the CPU."""
        options: dict[str, Any] = dict(self.record.retrain.kwargs)
        if on_progress is not None:
            options["on_progress"] = on_progress
        trained = self._train(
            self.untrained().to(self.device),
            samples,
            loss=self.loss,
            l2=self.record.l2,
            seed=self.record.seed,
            **options,
        )
        return trained.to("cpu", self.dtype).eval()
