"""Several exponential averages of the weights at once, to choose from afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zeroconv.files import atomic_write
from zeroconv.optim.ema import Ema

DECAYS = (0.999, 0.9995, 0.9999)  # a step
EVERY = 4  # steps between two updates: an average of so many steps does not see the difference


class Averages:
    """An `Ema` of a model's floating-point state for each of `decays`, under the model's names."""

    def __init__(
        self, model: nn.Module, decays: Sequence[float] = DECAYS, every: int = EVERY
    ) -> None:
        state = {
            name: value for name, value in model.state_dict().items() if value.is_floating_point()
        }
        self.names = list(state)
        self.emas = {decay: Ema(state.values(), decay, every=every) for decay in decays}

    def update(self) -> None:
        """Call after every step of the optimiser."""
        for ema in self.emas.values():
            ema.update()

    def of(self, decay: float) -> dict[str, Tensor]:
        """The averaged state of a decay, under the model's names."""
        return dict(zip(self.names, self.emas[decay].average, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {str(decay): ema.average for decay, ema in self.emas.items()}

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """What `state_dict` gave after `step` updates. Raises KeyError for another decay."""
        for decay, ema in self.emas.items():
            ema.load_state_dict({"average": state[str(decay)], "updates": step})

    def save(self, folder: Path, step: int) -> None:
        """Write `average-DECAY.safetensors` in float16, the step in the file's header."""
        from safetensors.torch import save_file

        for decay in self.emas:
            halves = {name: value.half().contiguous() for name, value in self.of(decay).items()}
            with atomic_write(folder / f"average-{decay}.safetensors") as temporary:
                save_file(halves, temporary, metadata={"step": str(step), "decay": str(decay)})
