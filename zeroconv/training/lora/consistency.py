"""Latent consistency distillation: the loss of a LoRA that makes a base's pictures in few steps.

Luo et al. 2023, "Latent Consistency Models" (LCM) and "LCM-LoRA". A consistency function f takes
noisy latents of any timestep to the clean ones at the end of their path. It is trained so that
neighbouring points of one path have one end. The base with its guidance gives the neighbour, by a
DDIM step over k timesteps. The names z, ω, k, c_skip and c_out are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from zeroconv.backbones import Diffusion, TextStates, UNetBackbone
from zeroconv.data.batches import Batch
from zeroconv.errors import UserError
from zeroconv.training.objective import ControlledLoss, predict
from zeroconv.training.recipes.lcm import LcmSettings

SIGMA_DATA, TIMESTEP_SCALE = 0.5, 10.0  # of c_skip and c_out; samplers have the same numbers


class ConsistencyLoss(ControlledLoss):
    """Batch in, mean loss out: of a LoRA that is in `backbone` and alone trains.

    empty: states of the empty prompt (1, L, D). `target_weights()`: a context inside which the
    LoRA has the weights that make the target; by default those that train.

    Raises UserError for a base that cannot be distilled.
    """

    recordable = (
        False  # a step draws guidance scales too, and the weights of a target change places
    )

    def __init__(
        self,
        backbone: UNetBackbone,
        settings: LcmSettings,
        empty: TextStates,
        autocast: torch.dtype | None = None,
        timesteps: str = "uniform",
        offset_noise: float = 0.0,
        mask_mean: str = "picture",
    ) -> None:
        check_distillable(backbone, settings)
        super().__init__(
            backbone,
            None,
            autocast,
            timesteps,
            offset_noise=offset_noise,
            mask_mean=mask_mean,
        )
        self.settings, self.empty = settings, empty
        self.adapted = adapter_layers(backbone.denoiser)
        self.target_weights: Callable[[], AbstractContextManager[None]] = nullcontext

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean loss of what is drawn from `generator`: noise, timesteps, guidance scales."""
        z, noise, t = self.draw(batch.moments, generator)
        low, high = self.settings.guidance
        share = torch.rand(len(z), generator=generator, device=z.device)
        cfg = low + (high - low) * share
        return self.errors(z, noise, t, None, batch.text, masks=batch.masks, cfg=cfg).mean()

    def errors(
        self,
        z: Tensor,
        noise: Tensor,
        t: Tensor,
        hints: Tensor | None,
        text: TextStates,
        control: bool = True,
        dtype: torch.dtype | None = None,
        masks: Tensor | None = None,
        kinds: Tensor | None = None,
        cfg: Tensor | None = None,
    ) -> Tensor:
        """Pseudo-Huber distance of both ends, of each example (N,), float32.

        t (N,): any timesteps; those of the solver's steps around them are taken. cfg (N,): scales
        of the base's guidance; None: the middle of the range. The other arguments are of controls.
        """
        cfg = torch.full((len(z),), sum(self.settings.guidance) / 2) if cfg is None else cfg
        later, earlier = self.step_around(t)
        noisy = self.process.noised(z, noise, later).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():  # first: the weights must be those of the graph when it is made
            before = self.solver_step(noisy, later, earlier, text, cfg.to(z))
            with self.target_weights():
                target = self.end_of(before, earlier, text)
        distance = self.end_of(noisy, later, text) - target
        c = self.settings.huber
        values = (distance.square() + c**2).sqrt() - c
        return values.mean(dim=(1, 2, 3)) if masks is None else self.masked_mean(values, masks)

    def step_around(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where the solver's step around timesteps (N,) begins, and where it ends, k earlier. The
        last one ends at 0.
        """
        skip = len(cast(Diffusion, self.process)) // self.settings.solver_steps
        later = (t // skip + 1) * skip - 1
        return later, (later - skip).clamp_min(0)

    def solver_step(
        self, noisy: Tensor, later: Tensor, earlier: Tensor, text: TextStates, cfg: Tensor
    ) -> Tensor:
        """z at `earlier`, from z at `later` by the base without its LoRA: one DDIM step with
        guidance of scale cfg (N,) = ω + 1.
        """
        process = cast(Diffusion, self.process)
        both = TextStates.cat([text, self._empty_like(text)])
        with without_adapter(self.adapted):
            outputs = self._output(noisy.repeat(2, 1, 1, 1), later.repeat(2), both)
        cond, uncond = outputs.chunk(2)
        output = uncond + cfg[:, None, None, None] * (cond - uncond)
        clean = process.clean(noisy, output, later)
        return process.noised(clean, process.noise(noisy, output, later), earlier)

    def end_of(self, noisy: Tensor, t: Tensor, text: TextStates) -> Tensor:
        """f(z, t) = c_skip z + c_out z₀, (N, C, h, w), with z₀ the clean latents of one step."""
        skip, out = boundary(t)
        clean = self.process.clean(noisy, self._output(noisy, t, text), t)
        return skip * noisy + out * clean

    def _output(self, noisy: Tensor, t: Tensor, text: TextStates) -> Tensor:
        dtype, device = self.autocast or torch.bfloat16, noisy.device.type
        with torch.autocast(device, dtype, enabled=self.autocast is not None):
            return predict(self.backbone, None, noisy, None, t, text).float()

    def _empty_like(self, text: TextStates) -> TextStates:
        """The empty prompt beside prompts of N pictures, as long as they are."""
        n, length = text.hidden.shape[:2]
        hidden = self.empty.hidden.to(text.hidden)
        pooled = text.pooled
        if pooled is not None and self.empty.pooled is not None:
            pooled = self.empty.pooled.to(pooled).expand(n, -1)
        return replace(text, hidden=hidden.repeat(n, length // hidden.shape[1], 1), pooled=pooled)


def boundary(t: Tensor) -> tuple[Tensor, Tensor]:
    """c_skip and c_out, each (N, 1, 1, 1): 1 and 0 at t = 0, so that f is the identity there (LCM,
    section 4.1; Karras et al. 2022, table 1).
    """
    scaled = TIMESTEP_SCALE * t.float()[:, None, None, None]
    variance = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / variance, scaled / variance.sqrt()


def empty_prompt(backbone: UNetBackbone) -> TextStates:
    """What the unconditional half of the base's guidance reads, (1, L, D)."""
    states = backbone.embed_text([""])
    if not backbone.zero_empty_negative:
        return states
    pooled = None if states.pooled is None else torch.zeros_like(states.pooled)
    return replace(states, hidden=torch.zeros_like(states.hidden), pooled=pooled)


def check_distillable(backbone: UNetBackbone, settings: LcmSettings) -> None:
    """Raise UserError for a base whose steps are no DDIM steps with guidance."""
    if not isinstance(backbone, UNetBackbone) or not isinstance(backbone.process, Diffusion):
        raise UserError(
            f"lora.kind lcm distils a Stable Diffusion that predicts ε or v, and {backbone.name} "
            "is a flow-matching model; choose another base."
        )
    if backbone.few_steps is not None:
        raise UserError(
            f"{backbone.name} is distilled already ({backbone.few_steps.name}); name the base that "
            "it was made from, without a LoRA for few steps."
        )
    steps = len(backbone.process)
    if steps % settings.solver_steps:
        raise UserError(
            f"lora.lcm.solver_steps is {settings.solver_steps}, which does not divide the {steps} "
            f"timesteps of {backbone.name}; give 50."
        )


def adapter_layers(denoiser: nn.Module) -> list[Any]:
    """The layers of peft that a LoRA stands beside."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def without_adapter(layers: list[Any]) -> Iterator[None]:
    """Inside, these layers compute what the base does. peft's own switch changes requires_grad
    too, which processes that share gradients must not see change.
    """
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False
