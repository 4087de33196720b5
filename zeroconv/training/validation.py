"""Hint gain: by how much the loss on held-out pictures falls when the network may see the right hint.

The training loss says almost nothing about whether the hint is followed: timestep and noise decide it. Here pictures,
timesteps and noise are fixed and the prompt is empty, so that only the hint can make a difference. No sampling.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from zeroconv.data.batches import channels_first
from zeroconv.data.examples import Examples
from zeroconv.training.objective import ControlledLoss, stream


@dataclass(frozen=True)
class HintGain:
    """Mean losses with the true hint, another picture's hint, and no control."""

    true: float
    shuffled: float
    none: float
    gain: float  # shuffled − true
    gain_error: float  # standard error of the mean of the paired differences

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 6) for name, value in asdict(self).items()}


class Validator:
    """Fixed pictures, timesteps (spread evenly over the schedule) and noise; `measure` takes seconds, not minutes."""

    def __init__(self, loss: ControlledLoss, examples: Examples, count: int, batch_size: int, seed: int) -> None:
        n = min(count, len(examples))
        generator = stream("cpu", seed, 3)
        rows = torch.randperm(len(examples), generator=generator)[:n].numpy()
        self.loss, self.examples, self.batch_size = loss, examples, batch_size
        self.rows = rows
        self.others = rows[(torch.arange(n) + max(1, n // 2)) % n]  # nobody keeps its own hint
        places = (torch.arange(n) + 0.5) / n * len(loss.alphas_cumprod)
        self.t = places.long()[torch.randperm(n, generator=generator)]
        moments = torch.from_numpy(examples.moments[rows])
        self.z = loss.backbone.latents_from_moments(moments, generator)
        self.noise = torch.randn(self.z.shape, generator=generator)
        self.none: Tensor | None = None  # without control nothing changes: measured once

    @torch.no_grad()
    def measure(self) -> HintGain:
        if self.none is None:
            self.none = self._losses(None, control=False)
        true, shuffled = self._losses(self.rows), self._losses(self.others)
        gain = shuffled - true
        error = float(gain.std() / len(gain) ** 0.5) if len(gain) > 1 else float("nan")
        return HintGain(float(true.mean()), float(shuffled.mean()), float(self.none.mean()), float(gain.mean()), error)

    def _losses(self, rows, control: bool = True) -> Tensor:
        device, parts = self.loss.alphas_cumprod.device, []
        for i in range(0, len(self.z), self.batch_size):
            part = slice(i, i + self.batch_size)
            z = self.z[part].to(device)
            hints = None if rows is None else channels_first(self.examples.hints[rows[part]]).to(device)
            text = self.examples.text.states([0] * len(z)).to(device)
            errors = self.loss.errors(z, self.noise[part].to(device), self.t[part].to(device), hints, text, control)
            parts.append(errors.cpu())
        return torch.cat(parts)
