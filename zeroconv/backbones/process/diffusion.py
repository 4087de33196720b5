"""Discrete diffusion with ε or v."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor

from zeroconv.backbones.process.kinds import is_flow
from zeroconv.backbones.process.levels import draw_levels
from zeroconv.errors import UserError


class Diffusion:
    """Discrete diffusion: z_t = √ᾱ_t z + √(1 − ᾱ_t) ε, t an integer in 0 … T − 1 (Ho et al. 2020).

    alphas_cumprod: ᾱ (T,) float32. prediction_type: "epsilon", ε itself, or "v_prediction",
    v = √ᾱ ε − √(1 − ᾱ) z (Salimans & Ho 2022).
    """

    def __init__(
        self, alphas_cumprod: Tensor, prediction_type: Literal["epsilon", "v_prediction"]
    ) -> None:
        self.alphas_cumprod, self.prediction_type = alphas_cumprod, prediction_type

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str) -> Self:
        """Of a diffusers scheduler's config. Raises UserError, naming the model by `name`."""
        kind = config.get("prediction_type", "epsilon")
        if is_flow(config) or kind not in ("epsilon", "v_prediction"):
            kind = "flow" if is_flow(config) else kind
            raise UserError(f"{name} predicts {kind!r}; zeroconv knows epsilon and v_prediction.")
        return cls(_alphas_cumprod(config, name), kind)

    @classmethod
    def scaled_linear(
        cls,
        prediction_type: Literal["epsilon", "v_prediction"],
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Stable Diffusion's schedule: 1000 steps, √β linear from √0.00085 to √0.012.

        dtype: that in which it is computed; ᾱ is float32 in any case.
        """
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=dtype, device="cpu") ** 2
        return cls(torch.cumprod(1 - betas, dim=0).float(), prediction_type)

    @property
    def device(self) -> torch.device:
        return self.alphas_cumprod.device

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.alphas_cumprod.to(device), self.prediction_type)  # type: ignore[arg-type]

    def __len__(self) -> int:
        """T, 1000 for Stable Diffusion."""
        return len(self.alphas_cumprod)

    def noised(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        signal, scatter = self._levels(t)
        return signal * z + scatter * noise

    def target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return noise
        signal, scatter = self._levels(t)
        return signal * noise - scatter * z

    def clean(self, noisy: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """With ε: (z_t − √(1 − ᾱ) ε) / √ᾱ. With v: √ᾱ z_t − √(1 − ᾱ) v. The first divides by zero
        where a schedule ends in pure noise.
        """
        signal, scatter = self._levels(t)
        if self.prediction_type == "epsilon":
            return (noisy - scatter * output) / signal
        return signal * noisy - scatter * output

    def noise(self, noisy: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The noise ε that a model's output at z_t stands for, (N, C, h, w): the output itself, or
        with v: √(1 − ᾱ) z_t + √ᾱ v.
        """
        if self.prediction_type == "epsilon":
            return output
        signal, scatter = self._levels(t)
        return scatter * noisy + signal * output

    def weights(self, t: Tensor, gamma: float) -> Tensor:
        """min(SNR, γ) / SNR on ε, min(SNR, γ) / (SNR + 1) on v."""
        alpha = self.alphas_cumprod[t]
        snr = alpha / (1 - alpha)
        return snr.clamp_max(gamma) / (snr if self.prediction_type == "epsilon" else snr + 1)

    def draw(
        self,
        count: int,
        generator: torch.Generator,
        device: torch.device | str,
        rule: str = "uniform",
        tokens: int | None = None,
    ) -> Tensor:
        steps = len(self)
        if rule == "uniform":
            return torch.randint(0, steps, (count,), generator=generator, device=device)
        levels = draw_levels(count, generator, device, rule)
        return (levels * steps).long().clamp_max(steps - 1)

    def spread(self, count: int) -> Tensor:
        return ((torch.arange(count) + 0.5) / count * len(self)).long()

    def draw_below(
        self, count: int, most: float, generator: torch.Generator, device: torch.device | str
    ) -> Tensor:
        end = min(len(self), int(most * len(self) / 1000) + 1)
        return torch.randint(0, end, (count,), generator=generator, device=device)

    def is_below(self, t: Tensor, most: float) -> Tensor:
        return t <= int(most * len(self) / 1000)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1 − ᾱ_t), each (N, 1, 1, 1)."""
        alpha = self.alphas_cumprod[t][:, None, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()


def _alphas_cumprod(config: Mapping[str, Any], name: str) -> Tensor:
    """ᾱ (T,) float32 on the CPU, as diffusers computes it of a scheduler's config."""
    from diffusers import DDPMScheduler

    known = inspect.signature(DDPMScheduler.__init__).parameters
    try:
        with torch.device("cpu"):  # also where a model is built without memory
            scheduler = DDPMScheduler(
                **{k: v for k, v in config.items() if k in known and k != "variance_type"}
            )
        alphas = scheduler.alphas_cumprod.float()
    # numpy, torch and diffusers raise many kinds for what makes no sense
    except Exception as error:
        raise UserError(
            f"the scheduler's config of {name} describes no noise schedule ({error})."
        ) from error
    if not bool(torch.isfinite(alphas).all()):
        raise UserError(f"the scheduler's config of {name} gives noise levels that are no numbers.")
    return alphas
