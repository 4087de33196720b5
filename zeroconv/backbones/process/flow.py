"""Flow matching on straight paths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from zeroconv.backbones.process.levels import draw_levels
from zeroconv.errors import UserError


class Flow:
    """Flow matching on straight paths: z_t = (1 − σ) z + σ ε, target ε − z (Lipman et al. 2023;
    Esser et al. 2024, section 3.1). t = σ · T, a float in (0, T].

    shift: noise levels are drawn and spread after σ → s σ / (1 + (s − 1) σ) (Esser et al. 2024,
    equation 23). dynamic: s = exp(μ), with μ a straight line of the number of tokens, from `base`
    (tokens, μ) to `most` (tokens, μ), instead of `shift`.
    """

    prediction_type: str = "flow"

    def __init__(
        self,
        shift: float = 1.0,
        steps: int = 1000,
        dynamic: bool = False,
        base: tuple[int, float] = (256, 0.5),
        most: tuple[int, float] = (4096, 1.15),
        device: torch.device | str = "cpu",
    ) -> None:
        self.shift, self.steps, self.dynamic = shift, steps, dynamic
        self.base, self.most = base, most
        self._device = torch.device(device)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str) -> Self:
        """Of the config of diffusers' FlowMatchEulerDiscreteScheduler, or of a scheduler with
        flow_shift. Raises UserError, naming the model by `name`.
        """
        kind = config.get("time_shift_type", "exponential")
        if kind != "exponential":
            raise UserError(
                f"{name} shifts its noise levels by the rule {kind!r}; zeroconv knows exponential."
            )
        shift = config.get("shift", config.get("flow_shift", 1.0))
        numbers = {"shift": shift, "num_train_timesteps": config.get("num_train_timesteps", 1000)}
        for key, value in numbers.items():
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise UserError(f"{name}: {key} is {str(value)[:80]}; it must be above zero.")
        return cls(
            float(shift),
            int(numbers["num_train_timesteps"]),
            bool(config.get("use_dynamic_shifting", False)),
            (config.get("base_image_seq_len") or 256, config.get("base_shift") or 0.5),
            (config.get("max_image_seq_len") or 4096, config.get("max_shift") or 1.15),
        )

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.shift, self.steps, self.dynamic, self.base, self.most, device)

    def sigma(self, t: Tensor) -> Tensor:
        """Noise levels σ in (0, 1] of timesteps, float32."""
        return t.float() / self.steps

    def mu(self, tokens: int) -> float:
        """log s of a picture of so many tokens, where the shift depends on the resolution."""
        (low, first), (high, last) = self.base, self.most
        return first + (tokens - low) * (last - first) / (high - low)

    def shifted(self, sigma: Tensor, tokens: int | None = None) -> Tensor:
        """Noise levels after the shift. Raises UserError where it needs `tokens` and has none."""
        shift = self.shift
        if self.dynamic and tokens is None:
            raise UserError("the noise levels depend on the picture's size; give its tokens.")
        if self.dynamic and tokens is not None:
            shift = math.exp(self.mu(tokens))
        return shift * sigma / (1 + (shift - 1) * sigma)

    def noised(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        sigma = self._level(t)
        return (1 - sigma) * z + sigma * noise

    def target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - z

    def clean(self, noisy: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """z_t − σ (ε − z)."""
        return noisy - self._level(t) * output

    def weights(self, t: Tensor, gamma: float) -> Tensor:
        """min(SNR, γ) σ², with SNR = ((1 − σ) / σ)²: an error of the velocity is σ times one of
        z.
        """
        sigma = self.sigma(t)
        return torch.minimum((1 - sigma) ** 2, gamma * sigma**2)

    def draw(
        self,
        count: int,
        generator: torch.Generator,
        device: torch.device | str,
        rule: str = "uniform",
        tokens: int | None = None,
    ) -> Tensor:
        levels = draw_levels(count, generator, device, rule)
        # σ = 0 has no noise to predict
        return self.shifted(levels, tokens).clamp_min(1 / self.steps) * self.steps

    def spread(self, count: int) -> Tensor:
        """Before the shift, whatever the resolution."""
        return (torch.arange(count) + 0.5) / count * self.steps

    def draw_below(
        self, count: int, most: float, generator: torch.Generator, device: torch.device | str
    ) -> Tensor:
        sigma = most / 1000 * torch.rand((count,), generator=generator, device=device)
        return sigma.clamp_min(1 / self.steps) * self.steps

    def is_below(self, t: Tensor, most: float) -> Tensor:
        return t <= most / 1000 * self.steps

    def _level(self, t: Tensor) -> Tensor:
        return self.sigma(t)[:, None, None, None]
