"""What moves while an optimiser works, as plain tensors that can be saved and gone on from.

Axes: v values that move (all d trained parameters, or a block of them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from oubli.components.errors import ConfigurationError, NumericalError
from oubli.components.removal.optimisers import Optimiser as Optimiser

RunState = Mapping[str, Tensor]
"""Values, buffers (`buffer.*`), optimiser (`optimiser.*`), generator (`draws`), steps done and the run's identity."""


@dataclass(frozen=True)
class Checkpoints:
    """How a long computation is saved, and gone on with to the same bits.

    Attributes:
        save: Takes the state, copies of its own, as plain tensors; None saves nothing.
        every: Units of work (a surrogate's epochs, matching's steps) from one save to the next; the last is saved too.
        resume: A state that `save` was given by a run with the same arguments, None to start at the beginning.
    """

    save: Callable[[dict[str, Tensor]], None] | None = None
    every: int = 1
    resume: RunState | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigurationError(f"Checkpoints every {self.every} units.", remedy="Use 1 or more.")


@dataclass
class Descent:
    """A run in progress.

    Attributes:
        values: (v,) the leaf that the optimiser moves.
        optimiser: Over `values` alone.
        buffers: Of the module that runs, by name; they move in place.
        draws: On the CPU whatever the device, so that the draws are the same everywhere.
        identity: Integers that another run's state would not share, such as the seed and the number of steps.
        done: Steps taken.
    """

    values: Tensor
    optimiser: torch.optim.Optimizer
    buffers: Mapping[str, Tensor]
    draws: torch.Generator
    identity: tuple[int, ...]
    done: int = 0

    def step(self, loss: Tensor, rate: float) -> None:
        """One step of the optimiser at the given rate, down a loss that depends on `values`."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.done += 1

    def check_finite(self, remedy: str) -> None:
        """NumericalError with the remedy where values or buffers are no longer finite."""
        moved = [self.values.detach(), *(buffer for buffer in self.buffers.values() if buffer.is_floating_point())]
        if not all(bool(torch.isfinite(one).all()) for one in moved):
            raise NumericalError(f"Weights are NaN or infinite after {self.done} steps.", remedy=remedy)

    def state(self) -> dict[str, Tensor]:
        """Copies of everything, as plain tensors on the CPU."""
        found = {"values": self.values.detach(), "draws": self.draws.get_state()}
        found |= {f"buffer.{name}": value for name, value in self.buffers.items()}
        kept = self.optimiser.state.get(self.values, {})
        found |= {f"optimiser.{name}": value for name, value in kept.items() if isinstance(value, Tensor)}
        found |= {"done": torch.tensor(self.done), "identity": torch.tensor(self.identity)}
        return {name: value.detach().cpu().clone() for name, value in found.items()}

    def restore(self, state: RunState) -> None:
        """Go on from a state.

        Raises:
            ConfigurationError: It is not a state of this run.
        """
        expected = {"values", "draws", "done", "identity", *(f"buffer.{name}" for name in self.buffers)}
        same = (
            expected <= set(state)
            and state["values"].shape == self.values.shape
            and tuple(state["identity"].tolist()) == self.identity
            and all(state[f"buffer.{name}"].shape == buffer.shape for name, buffer in self.buffers.items())
        )
        if not same:
            raise ConfigurationError(
                "The saved state belongs to another run.", remedy="Start again, or pass the arguments it was made with."
            )
        with torch.no_grad():
            self.values.copy_(state["values"])
            for name, buffer in self.buffers.items():
                buffer.copy_(state[f"buffer.{name}"])
        prefix = "optimiser."
        kept = {name.removeprefix(prefix): value.clone() for name, value in state.items() if name.startswith(prefix)}
        if kept:
            # Adam counts its steps on the CPU; its moments, and a momentum, lie where the values are.
            self.optimiser.state[self.values] = {
                name: value if name == "step" else value.to(self.values.device) for name, value in kept.items()
            }
        self.draws.set_state(state["draws"])
        self.done = int(state["done"])


def cosine(step: int, steps: int) -> float:
    """The factor of step 0, 1, ... of a rate that falls from 1 to 0 over `steps` steps along a half cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))
