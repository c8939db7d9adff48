"""A training record's import strings turned into things that run: the module, its loss, its training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from oubli.components.model.losses import Loss, LossFunction, loss_function
from oubli.components.model.objective import Objective
from oubli.components.model.samples import Samples
from oubli.components.model.scope import Scope
from oubli.components.model.seeding import build_seeded
from oubli.registry.errors import RegistryError, TrainingRecordError
from oubli.registry.settings import Settings
from oubli.registry.training.decoders import example_value
from oubli.registry.training.imports import resolve
from oubli.registry.training.training_record import Precision, TrainingRecord

_NAMES_SHOWN = 5
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
        """The recipe of a training record.

        Args:
            record: How the model was trained.
            settings: Which packages may be imported from, and where to compute.

        Raises:
            FactoryNotAllowed: An import string lies outside the allow-list, or names nothing.
        """
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
        """Floating-point type of the parameters."""
        return _DTYPES[self.record.dtype]

    @property
    def compute_dtype(self) -> torch.dtype:
        """float64 for a convex model, whose update is exact to rounding; else the model's own."""
        return torch.float64 if self.record.convex else self.dtype

    def untrained(self, seed: int | None = None) -> nn.Module:
        """A module fresh from its factory.

        Args:
            seed: Of its initial weights; None for the record's, those that the model's training began with.

        Raises:
            TrainingRecordError: The factory does not take the record's arguments.
        """
        try:
            module = build_seeded(
                lambda: self._factory(**self.record.factory.kwargs), self.record.seed if seed is None else seed
            )
        except TypeError as error:
            raise TrainingRecordError(
                f"{self.record.factory.target} does not take the arguments of the training record: {error}.",
                remedy="Correct the factory's arguments in the training record.",
            ) from error
        return module.to(self.dtype)

    def module(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """The module with these weights and buffers, in evaluation mode, on the CPU.

        Raises:
            TrainingRecordError: The factory does not take the record's arguments.
            RegistryError: The weights do not fit what the factory builds.
        """
        module = self.untrained()
        try:
            module.load_state_dict(dict(weights), strict=True)
        except RuntimeError as error:
            raise RegistryError(
                f"The registered weights do not fit what {self.record.factory.target} builds: {error}",
                remedy="Correct the factory or its arguments in the training record.",
            ) from error
        return module.eval()

    def example(self, inputs: Tensor) -> Tensor:
        """(2, ...) inputs as the module takes them, of no real sample, from the shape of some inputs (n, ...)."""
        dtype = self.dtype if inputs.is_floating_point() else inputs.dtype
        return torch.full((2, *inputs.shape[1:]), self.example_value, dtype=dtype)

    @property
    def example_value(self) -> int:
        """What an example input of no real sample is filled with."""
        return example_value(self.record.decoder)

    def objective(self, module: nn.Module) -> Objective:
        """F of `module` in the parameters that the record says were trained, where the settings compute."""
        return Objective(
            module,
            self.loss,
            self.record.l2,
            device=self.device,
            dtype=self.compute_dtype,
            trained=self.record.trained,
        )

    def train(
        self,
        samples: Samples,
        on_progress: Callable[[float], None] | None = None,
        *,
        frozen: Mapping[str, Tensor] | None = None,
        start: Mapping[str, Tensor] | None = None,
        watch: Callable[[nn.Module], Callable[[int], None]] | None = None,
    ) -> nn.Module:
        """A module trained on `samples`, from a fresh initialisation or from given weights.

        Where the record names what is trained, everything else stays as it was, bit for bit. The trainer is then given
        those names as `trained`, and a module whose other parameters take no gradient and whose other layers stay in
        evaluation mode.

        Args:
            samples: What to train on; the trainer computes where the settings say.
            on_progress: Takes the fraction done, where the trainer reports it.
            frozen: The weights that the frozen part keeps, those of the version that is trained again; None for those
                that the factory gives.
            start: The weights and buffers that training begins with; None for a fresh initialisation.
            watch: Takes the module before its training and returns what the trainer calls after each epoch as
                `on_epoch`.

        Returns:
            The module on the CPU, in evaluation mode.

        Raises:
            TrainingRecordError: The trainer changed something that is frozen, or has no epochs to watch.
        """
        options: dict[str, Any] = dict(self.record.retrain.kwargs)
        if on_progress is not None:
            options["on_progress"] = on_progress
        module = self.untrained() if start is None else self.module(start)
        if watch is not None:
            if "on_epoch" not in inspect.signature(self._train).parameters:
                raise TrainingRecordError(
                    f"{self.record.retrain.target} takes no `on_epoch`, so its epochs cannot be watched.",
                    remedy="Leave `secant` out, or let the trainer call on_epoch(number) after each epoch.",
                )
            options["on_epoch"] = watch(module)
        if self.record.trained is None:
            return self._trained(module, samples, options)
        scope = Scope.of(module, self.record.trained)
        if frozen is not None:
            scope.copy_frozen(frozen, module)
        before = scope.frozen_state(module)
        with scope.held(module):
            trained = self._trained(module, samples, {**options, "trained": self.record.trained})
        moved = [name for name, value in scope.frozen_state(trained).items() if not torch.equal(value, before[name])]
        if moved:
            raise TrainingRecordError(
                f"{self.record.retrain.target} changed what the training record says is frozen: "
                f"{', '.join(moved[:_NAMES_SHOWN])}.",
                remedy="Let the trainer move only parameters that require a gradient, or correct `trained`.",
            )
        return trained

    def _trained(self, module: nn.Module, samples: Samples, options: Mapping[str, Any]) -> nn.Module:
        trained = self._train(
            module.to(self.device),
            samples,
            loss=self.loss,
            l2=self.record.l2,
            seed=self.record.seed,
            **options,
        )
        return trained.to("cpu", self.dtype).eval()
