"""Hint gain: by how much the loss on held-out pictures falls when the network may see the right
hint.

The training loss says almost nothing about whether the hint is followed: timestep and noise decide
it. Here pictures, timesteps and noise are fixed and the prompt is empty, so that only the hint can
make a difference. No sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from zeroconv.data.batches import channels_first, of_size
from zeroconv.data.cache.examples import Examples
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


@dataclass(frozen=True)
class Group:
    """Held-out pictures of one shape, with what they are measured with."""

    rows: ndarray
    others: ndarray  # whose hints they get instead
    t: Tensor
    z: Tensor
    noise: Tensor


class Validator:
    """Fixed pictures, timesteps (spread evenly over the schedule) and noise; `measure` takes
    seconds, not minutes.
    """

    def __init__(
        self,
        loss: ControlledLoss,
        examples: Examples,
        count: int,
        batch_size: int,
        seed: int,
        kinds: Mapping[str | None, int] | None = None,
    ) -> None:
        """kinds: see `BatchPlan`."""
        self.kinds = kinds
        n = min(count, len(examples))
        generator = stream("cpu", seed, 3)
        rows = torch.randperm(len(examples), generator=generator)[:n].numpy()
        self.loss, self.examples, self.batch_size = loss, examples, batch_size
        t = loss.process.spread(n)[torch.randperm(n, generator=generator)]
        self.groups = []
        for bucket in examples.buckets:
            inside = np.flatnonzero(np.isin(rows, bucket))
            if not len(inside):
                continue
            others = rows[np.roll(inside, -max(1, len(inside) // 2))]  # nobody keeps its own hint
            if len(inside) == 1:
                others = rows[(inside + max(1, n // 2)) % n]  # of another shape
            z = loss.backbone.latents_from_moments(
                torch.from_numpy(examples.moments[rows[inside]]), generator
            )
            noise = torch.randn(z.shape, generator=generator)
            self.groups.append(Group(rows[inside], others, t[torch.from_numpy(inside)], z, noise))
        # without control nothing changes: measured once, unless the decoder trains
        self.none: Tensor | None = None

    @torch.no_grad()
    def measure(self) -> HintGain:
        if self.none is None or self.loss.decoder is not None:
            self.none = self._losses(None)
        true, shuffled = self._losses("rows"), self._losses("others")
        gain = shuffled - true
        error = float(gain.std() / len(gain) ** 0.5) if len(gain) > 1 else float("nan")
        return HintGain(
            float(true.mean()),
            float(shuffled.mean()),
            float(self.none.mean()),
            float(gain.mean()),
            error,
        )

    def _losses(self, whose: Literal["rows", "others"] | None) -> Tensor:
        """The loss of each picture with the hints of `whose`, or without control."""
        device, parts = self.loss.process.device, []
        for group in self.groups:
            for i in range(0, len(group.z), self.batch_size):
                part = slice(i, i + self.batch_size)
                z = group.z[part].to(device)
                hints = (
                    None
                    if whose is None
                    else self._hints(getattr(group, whose)[part], z).to(device)
                )
                scale = self.loss.backbone.latent_scale
                height, width = (scale * side for side in z.shape[-2:])
                empty = self.examples.text.states([0] * len(z))
                originals = self.examples.originals_of(group.rows[part])
                text = of_size(empty, height, width, originals)
                noise, t = group.noise[part].to(device), group.t[part].to(device)
                masks = self.examples.masks_of(group.rows[part])
                shown = None if whose is None else getattr(group, whose)[part]
                kinds = None if shown is None else self.examples.kinds_of(shown, self.kinds)
                errors = self.loss.errors(
                    z,
                    noise,
                    t,
                    hints,
                    text.to(device),
                    control=whose is not None,
                    masks=None if masks is None else masks.to(device),
                    kinds=None if kinds is None else kinds.to(device),
                )
                parts.append(errors.cpu())
        return torch.cat(parts)

    def _hints(self, rows: ndarray, z: Tensor) -> Tensor:
        """Hints (N, 1, 3 or 4, H, W) for latents z, or latents of hints that are cached; those of
        another shape are stretched.
        """
        read = self.examples.hint_latents
        if read is not None and (latents := read.plain[rows]).shape[-2:] == z.shape[-2:]:
            return torch.from_numpy(latents)
        hints = channels_first(self.examples.hints[rows])
        size = [self.loss.backbone.latent_scale * side for side in z.shape[-2:]]
        return (
            hints
            if list(hints.shape[-2:]) == size
            else nn.functional.interpolate(hints, size, mode="nearest")
        )
