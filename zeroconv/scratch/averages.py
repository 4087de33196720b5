"""Several exponential averages of the weights at once, to choose from afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroconv.files import atomic_write

DECAYS = (0.999, 0.9995, 0.9999)  # a step
EVERY = 4  # steps between two updates: an average of so many steps does not see the difference


class Averages:
    """Follows the floating-point state of a model with each of `decays`, in float32.

    Early on the decay is (1 + k) / (10 + k) at most, k the steps so far, so that no average
    remembers the start.
    """

    def __init__(
        self, model: nn.Module, decays: Sequence[float] = DECAYS, every: int = EVERY
    ) -> None:
        state = {
            name: value for name, value in model.state_dict().items() if value.is_floating_point()
        }
        self.names, self.live = list(state), list(state.values())
        self.decays, self.every = tuple(decays), every
        self.kept = {decay: [value.clone() for value in self.live] for decay in self.decays}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Call after every optimiser step, `step` counting from 1."""
        if step % self.every:
            return

        for decay, kept in self.kept.items():
            limited = min(decay**self.every, (1 + step) / (10 + step))
            torch._foreach_lerp_(kept, self.live, 1 - limited)

    def of(self, decay: float) -> dict[str, Tensor]:
        """The averaged state of a decay, under the model's names."""
        return dict(zip(self.names, self.kept[decay], strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {str(decay): kept for decay, kept in self.kept.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for decay, kept in self.kept.items():
            for value, saved in zip(kept, state[str(decay)], strict=True):
                value.copy_(saved)

    def save(self, folder: Path, step: int) -> None:
        """Write `average-DECAY.safetensors` in float16, the step in the file's header."""
        from safetensors.torch import save_file

        for decay in self.decays:
            halves = {name: value.half().contiguous() for name, value in self.of(decay).items()}
            with atomic_write(folder / f"average-{decay}.safetensors") as temporary:
                save_file(halves, temporary, metadata={"step": str(step), "decay": str(decay)})
