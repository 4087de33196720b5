"""How noise is added to latents and what a model predicts of it: discrete diffusion or flow
matching. Nothing else knows a noise schedule.

Training asks for `draw`, `noised`, `target` and `weights`; measuring asks for `spread`; whoever
wants the clean latent of one step asks for `clean`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from zeroconv.errors import UserError

TIMESTEPS = ("uniform", "cubic", "logit_normal", "mode")  # rules of `draw`


class Process(Protocol):
    """Latents z and noise ε are (N, C, h, w), timesteps t (N,) in the unit of the model's input."""

    @property
    def prediction_type(self) -> str:
        """ "epsilon", "v_prediction" or "flow"."""

    @property
    def device(self) -> torch.device:
        """Where the schedule lies; timesteps must lie there too."""

    def to(self, device: torch.device | str) -> Self: ...

    def noised(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t, the noisy latents (N, C, h, w)."""

    def target(self, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model predicts of z and ε, (N, C, h, w)."""

    def clean(self, noisy: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The latents z that a model's output at z_t stands for, (N, C, h, w)."""

    def weights(self, t: Tensor, gamma: float) -> Tensor:
        """Min-SNR-γ weights (N,) of a squared error of the output (Hang et al. 2023).

        The method weighs a squared error of z by min(SNR, γ). An error of the output is an error of
        z times a factor that depends on what is predicted.
        """

    def draw(
        self,
        count: int,
        generator: torch.Generator,
        device: torch.device | str,
        rule: str = "uniform",
        tokens: int | None = None,
    ) -> Tensor:
        """Timesteps (count,) of a training step by a rule of `TIMESTEPS`.

        tokens: positions that the model attends over in a picture; read where the schedule depends
        on the resolution.
        """

    def spread(self, count: int) -> Tensor:
        """Timesteps (count,) in the middles of `count` equal parts of the schedule, rising."""

    def draw_below(
        self, count: int, most: float, generator: torch.Generator, device: torch.device | str
    ) -> Tensor:
        """Timesteps (count,), uniform over those that `is_below` is true of."""

    def is_below(self, t: Tensor, most: float) -> Tensor:
        """(N,) bool: whether t is at most `most` thousandths of the schedule: t ≤ most of 1000
        steps of diffusion, σ ≤ most / 1000 of a flow.
        """


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


def draw_levels(
    count: int, generator: torch.Generator, device: torch.device | str, rule: str
) -> Tensor:
    """Shares of the schedule (count,) in [0, 1], 1 is pure noise, by a rule of `TIMESTEPS`.

    "logit_normal": the sigmoid of a normal number, and "mode", with s = 1.29 (Esser et al. 2024,
    equations 19 and 20). "cubic": 1 − u³, which prefers noise (Mou et al. 2023, section 3.3).
    Raises UserError for an unknown rule.
    """
    if rule == "logit_normal":
        return torch.randn((count,), generator=generator, device=device).sigmoid()
    if rule not in TIMESTEPS:
        raise UserError(f"there is no rule {rule!r} for timesteps; choose {', '.join(TIMESTEPS)}.")
    u = torch.rand((count,), generator=generator, device=device)
    if rule == "cubic":
        return 1 - u**3
    if rule == "mode":
        return 1 - u - 1.29 * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)
    return u


def make_process(config: Mapping[str, Any], name: str) -> Process:
    """Of a diffusers scheduler's config. Raises UserError, naming the model by `name`."""
    kind = Flow if is_flow(config) else Diffusion
    return kind.from_config(config, name)


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a diffusers scheduler's config is of a flow-matching model."""
    return (
        str(config.get("_class_name", "")).startswith("FlowMatch")
        or config.get("prediction_type") == "flow_prediction"
        or bool(config.get("use_flow_sigmas", False))
    )


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
